"""Filter indexes of declared item fields: Roaring bitmaps for words, columns for numbers and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyroaring import BitMap

from queryd.hot.arrays import F64, I32, I64, U32, Mask, grown
from schemas.model import FieldDef

ABSENT_TIME = np.iinfo(np.int64).min
ABSENT_CODE = -1


class WordIndex:
    """A keyword, bool or tags field: the items of each word as a bitmap, and what each item has.

    For a single-valued field ``codes`` i32[items] is the word's number (−1 = none), which diversity limits
    read as a column. For tags the words of an item are kept as a tuple of numbers.
    """

    def __init__(self, *, many: bool) -> None:
        self.many = many
        self.words: list[str] = []
        self._code_of: dict[str, int] = {}
        self._bitmaps: list[BitMap] = []
        self._codes: I32 = np.full(0, ABSENT_CODE, dtype=np.int32)
        self._sets: dict[int, tuple[int, ...]] = {}

    def set(self, ordinals: U32, values: Sequence[Sequence[str]]) -> None:
        """Replace the words of items; ``ordinals`` must not repeat. An empty sequence takes them away."""
        self._forget(ordinals)
        rows: dict[int, list[int]] = {}
        for ordinal, words in zip(ordinals.tolist(), values, strict=True):
            codes = tuple(self._code(word) for word in words)
            if self.many and codes:
                self._sets[ordinal] = codes
            for code in codes:
                rows.setdefault(code, []).append(ordinal)
        if not self.many and len(ordinals):
            self._codes = grown(self._codes, int(ordinals.max()) + 1, ABSENT_CODE)
        for code, items in rows.items():
            self._bitmaps[code].update(items)
            if not self.many:
                self._codes[items] = code

    def bitmap(self, word: str) -> BitMap:
        """The items that have ``word`` (do not change it)."""
        code = self._code_of.get(word)
        return BitMap() if code is None else self._bitmaps[code]

    def present(self) -> BitMap:
        """The items that have any word."""
        return BitMap.union(*self._bitmaps) if self._bitmaps else BitMap()

    def codes(self, ordinals: U32) -> I32:
        """Word numbers i32[n] of items of a single-valued field, −1 for none."""
        found = np.full(len(ordinals), ABSENT_CODE, dtype=np.int32)
        known = ordinals < len(self._codes)
        found[known] = self._codes[ordinals[known]]
        return found

    def _code(self, word: str) -> int:
        code = self._code_of.get(word)
        if code is None:
            code = self._code_of[word] = len(self.words)
            self.words.append(word)
            self._bitmaps.append(BitMap())
        return code

    def _forget(self, ordinals: U32) -> None:
        if self.many:
            for ordinal in ordinals.tolist():
                for code in self._sets.pop(ordinal, ()):
                    self._bitmaps[code].discard(ordinal)
            return
        old = self.codes(ordinals)
        for code in np.unique(old[old >= 0]).tolist():
            self._bitmaps[code] -= BitMap(ordinals[old == code])
        held = ordinals[old >= 0]
        self._codes[held] = ABSENT_CODE


class NumberColumn:
    """An int or float field as f64[items], NaN where absent (a dense scan of a million takes under 1 ms)."""

    def __init__(self) -> None:
        self._values: F64 = np.full(0, np.nan)

    def set(self, ordinals: U32, values: F64) -> None:
        """Replace values f64[n]; NaN takes one away."""
        if len(ordinals):
            self._values = grown(self._values, int(ordinals.max()) + 1, np.nan)
            self._values[ordinals] = values

    def values(self, items: int) -> F64:
        """The column f64[items]."""
        self._values = grown(self._values, items, np.nan)
        return self._values[:items]


class TimeColumn:
    """A time field as i64[items] epoch ms, ``ABSENT_TIME`` where absent."""

    def __init__(self) -> None:
        self._values: I64 = np.full(0, ABSENT_TIME, dtype=np.int64)

    def set(self, ordinals: U32, values: I64) -> None:
        """Replace values i64[n]."""
        if len(ordinals):
            self._values = grown(self._values, int(ordinals.max()) + 1, ABSENT_TIME)
            self._values[ordinals] = values

    def values(self, items: int) -> I64:
        """The column i64[items]."""
        self._values = grown(self._values, items, ABSENT_TIME)
        return self._values[:items]


class FieldIndexes:
    """One filter index for each declared, filterable field of items (text fields have none)."""

    def __init__(self, fields: Mapping[str, FieldDef]) -> None:
        self._fields = dict(fields)
        self.words: dict[str, WordIndex] = {}
        self.numbers: dict[str, NumberColumn] = {}
        self.times: dict[str, TimeColumn] = {}
        for field in fields.values():
            if field.type in ("keyword", "bool", "tags"):
                self.words[field.name] = WordIndex(many=field.type == "tags")
            elif field.type in ("int", "float"):
                self.numbers[field.name] = NumberColumn()
            elif field.type == "time":
                self.times[field.name] = TimeColumn()

    def set(self, ordinals: U32, records: Sequence[Mapping[str, Any]]) -> None:
        """Index the declared fields of n items, replacing what they had; ``ordinals`` must not repeat."""
        for name, index in self.words.items():
            index.set(ordinals, [as_words(record.get(name)) for record in records])
        for name, numbers in self.numbers.items():
            values = [_as_number(record.get(name)) for record in records]
            numbers.set(ordinals, np.array(values, dtype=np.float64))
        for name, times in self.times.items():
            moments = [_as_time(record.get(name)) for record in records]
            times.set(ordinals, np.array(moments, dtype=np.int64))


def as_words(value: Any) -> tuple[str, ...]:
    """The words under which a value is indexed: distinct, in order; a bool is ``true`` or ``false``."""
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(str(word) for word in value))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    return (str(value),)


def _as_number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _as_time(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else int(ABSENT_TIME)


def as_mask(bitmap: BitMap, items: int) -> Mask:
    """``bitmap`` as bool[items]; ordinals past ``items`` are left out."""
    mask = np.zeros(items, dtype=np.bool_)
    rows = np.asarray(bitmap.to_array(), dtype=np.uint32) if len(bitmap) else np.zeros(0, dtype=np.uint32)
    mask[rows[rows < items]] = True
    return mask
