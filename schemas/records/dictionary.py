"""Strings to a dictionary and indexes, and many dictionaries to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.records.columns import I64, EventColumns

T = TypeVar("T")


def to_dictionary(strings: Sequence[str]) -> tuple[list[str], I64]:
    """``(dictionary, index i64[n])``: each string once, in order of first sight."""
    unique = list(dict.fromkeys(strings))
    if len(unique) == len(strings):
        return unique, np.arange(len(unique), dtype=np.int64)
    index = dict(zip(unique, range(len(unique)), strict=True))
    return unique, np.fromiter(map(index.__getitem__, strings), dtype=np.int64, count=len(strings))


def as_dictionary(strings: Sequence[str]) -> tuple[list[str], I64]:
    """The same for who does not need each string to stand once."""
    return list(strings), np.arange(len(strings), dtype=np.int64)


def merge(parts: Sequence[EventColumns], *, compact: bool = True) -> EventColumns:
    """The events of all parts, in order, over one dictionary each of kinds, items and users.

    Unless ``compact``, an item or user may stand in its dictionary once for each part.
    """
    if len(parts) == 1 and (not compact or _unique(parts[0])):
        return parts[0]
    counts = [len(part) for part in parts]
    dictionary = to_dictionary if compact else as_dictionary
    kinds, kind = _merged(
        [part.kinds for part in parts], [part.kind for part in parts], counts, to_dictionary
    )
    items, item = _merged([part.items for part in parts], [part.item for part in parts], counts, dictionary)
    users, user = _merged([part.users for part in parts], [part.user for part in parts], counts, dictionary)
    return EventColumns(
        kinds=kinds,
        items=items,
        users=users,
        kind=kind.astype(np.uint16),
        item=item.astype(np.uint32),
        user=user.astype(np.uint32),
        weight=np.concatenate([part.weight for part in parts]),
        ts_ms=np.concatenate([part.ts_ms for part in parts]),
        request_ids=_optional([part.request_ids for part in parts], counts, ""),
        contexts=_optional([part.contexts for part in parts], counts, b""),
    )


def _unique(part: EventColumns) -> bool:
    dictionaries = (part.kinds, part.items, part.users)
    return all(len(set(dictionary)) == len(dictionary) for dictionary in dictionaries)


def _merged(
    dictionaries: list[list[str]],
    indexes: list[npt.NDArray[Any]],
    counts: list[int],
    to_one: Callable[[Sequence[str]], tuple[list[str], I64]],
) -> tuple[list[str], I64]:
    sizes = [len(dictionary) for dictionary in dictionaries]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    strings, merged = to_one(list(chain.from_iterable(dictionaries)))
    return strings, merged[np.concatenate(indexes) + np.repeat(starts, counts)]


def _optional(columns: list[list[T] | None], counts: list[int], nothing: T) -> list[T] | None:
    if all(column is None for column in columns):
        return None
    pairs = zip(columns, counts, strict=True)
    return list(
        chain.from_iterable([nothing] * count if column is None else column for column, count in pairs)
    )
