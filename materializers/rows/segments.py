"""Rows of ``segments`` and ``segment_items``, and the feed section of the former.

``segments``: what is kept of a user to know their segments. Key: ``[user EntityId][0x00][SEGMENT_TAG]``.
Value: a version byte, the newest time counted i64, and for each term with an event, by code: code u32, count
i64, sum in micro-units i64, the number of timestamps u16 and the timestamps i64, newest first; little endian.

``segment_items``: which item conditions an item satisfies, as the partition's log last said. Key: ``[item
EntityId][0x00][SEGMENT_ITEM_TAG]``; value: a version byte and msgpack.

Feed section: a version byte, n u32, n EntityIds u64, n lengths u32, and the rows; an empty one is gone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError, check_version
from materializers.rows.fixed import Column, FixedRow
from schemas.keys import row_key, row_keys
from schemas.segment_plan import Term

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

TABLE: Final = "segments"
SECTION: Final = TABLE
SEGMENT_TAG: Final = 13
ITEMS_TABLE: Final = "segment_items"
SEGMENT_ITEM_TAG: Final = 14
VERSION: Final = 1

NEVER_MS: Final = -(1 << 62)
"""The time of an event that has not been."""

_HEAD: Final = np.dtype([("version", "u1"), ("newest_ms", "<i8"), ("terms", "u1")])
_PART: Final = np.dtype([("code", "<u4"), ("count", "<i8"), ("sum", "<i8"), ("kept", "<u2")])
_TIME: Final = np.dtype("<i8")
_SECTION_HEAD: Final = struct.Struct("<BI")
_VERSION_BYTE: Final = bytes((VERSION,))


class TermCount(NamedTuple):
    """Of one term: events and weight (micro-units) of all time, the newest timestamps, newest first."""

    events: int
    sum: int
    times: tuple[int, ...]


class SegmentCounts(NamedTuple):
    """A user's row; ``terms`` by code."""

    newest_ms: int
    terms: dict[int, TermCount]


class SegmentItem(msgspec.Struct, frozen=True, array_like=True):
    """Conditions in canonical text; partition and offset of the item's record that caused it."""

    item: str
    holds: tuple[str, ...]
    source_partition: int
    source_offset: int


def segment_keys(users: U64) -> list[bytes]:
    """Keys of n users."""
    return row_keys(users, SEGMENT_TAG)


def segment_item_key(item: int) -> bytes:
    """Key of one item."""
    return row_key(item, SEGMENT_ITEM_TAG)


def decode_segment_counts(row: bytes) -> SegmentCounts:
    """One row with all that it says, whatever the schema.

    Raises:
        RowFormatError: damaged, or of another version.
    """
    check_version(TABLE, row[0] if row else -1, VERSION)
    try:
        [head] = np.frombuffer(row, _HEAD, 1)
        terms, at = {}, _HEAD.itemsize
        for _ in range(head["terms"]):
            [part] = np.frombuffer(row, _PART, 1, at)
            at += _PART.itemsize
            times = np.frombuffer(row, _TIME, int(part["kept"]), at).tolist()
            at += len(times) * _TIME.itemsize
            terms[int(part["code"])] = TermCount(int(part["count"]), int(part["sum"]), tuple(times))
    except ValueError as error:
        raise RowFormatError(TABLE, f"a row of {len(row)} bytes ({error})") from error
    if at != len(row):
        raise RowFormatError(TABLE, f"a row of {len(row)} bytes, {at} are used")
    return SegmentCounts(int(head["newest_ms"]), terms)


def encode_segment_item(item: SegmentItem) -> bytes:
    return _VERSION_BYTE + msgspec.msgpack.encode(item)


def decode_segment_item(row: bytes) -> SegmentItem:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    check_version(ITEMS_TABLE, row[0] if row else -1, VERSION)
    try:
        return msgspec.msgpack.decode(row[1:], type=SegmentItem)
    except msgspec.MsgspecError as error:
        raise RowFormatError(ITEMS_TABLE, str(error)) from error


class SegmentRow(FixedRow):
    """The rows of a schema's terms as columns: ``newest_ms``, and for the term at place i ``count_i``,
    ``sum_i`` and, if timestamps are kept, ``times_i`` [kept], newest first and ``NEVER_MS`` where there are
    fewer.

    A row keeps what another schema's terms left in it until it is written again. One with more timestamps
    than are kept now loses the oldest.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = tuple(terms)
        fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [("newest_ms", "<i8")]
        for place, term in enumerate(terms):
            fields += [(f"count_{place}", "<i8"), (f"sum_{place}", "<i8")]
            if term.kept:
                fields.append((f"times_{place}", "<i8", (term.kept,)))
        super().__init__(TABLE, VERSION, fields)
        self._by_code = sorted(range(len(terms)), key=lambda place: terms[place].code)

    @property
    def defaults(self) -> dict[str, int | float]:
        """Of a user without a row."""
        times = {f"times_{place}": NEVER_MS for place, term in enumerate(self._terms) if term.kept}
        return {"newest_ms": NEVER_MS, **times}

    def encode(self, columns: Mapping[str, Column], tails: Sequence[bytes] | None = None) -> list[bytes]:
        """Rows of equally long columns, built term by term in one buffer."""
        newest = columns["newest_ms"]
        kept = {
            place: np.minimum(columns[f"count_{place}"].astype(np.int64), self._terms[place].kept)
            for place in self._by_code
        }
        held = {place: columns[f"count_{place}"] != 0 for place in self._by_code}
        lengths = np.full(len(newest), _HEAD.itemsize, dtype=np.int64)
        for place in self._by_code:
            lengths += np.where(held[place], _PART.itemsize + _TIME.itemsize * kept[place], 0)
        ends = np.cumsum(lengths)
        blob = np.zeros(int(lengths.sum()), dtype=np.uint8)
        heads = np.zeros(len(newest), dtype=_HEAD)
        heads["version"], heads["newest_ms"] = VERSION, newest
        heads["terms"] = sum(each.astype(np.uint8) for each in held.values()) if held else 0
        at = ends - lengths
        _put(blob, at, heads)
        at = at + _HEAD.itemsize
        for place in self._by_code:
            rows = np.flatnonzero(held[place])
            part = np.zeros(len(rows), dtype=_PART)
            part["code"], part["kept"] = self._terms[place].code, kept[place][rows]
            part["count"] = columns[f"count_{place}"][rows]
            part["sum"] = columns[f"sum_{place}"][rows]
            _put(blob, at[rows], part)
            at[rows] += _PART.itemsize
            if self._terms[place].kept:
                row, nth = np.nonzero(np.arange(self._terms[place].kept) < kept[place][rows][:, None])
                times = columns[f"times_{place}"][rows[row], nth].astype(_TIME)
                _put(blob, at[rows[row]] + _TIME.itemsize * nth, times)
                at[rows] += _TIME.itemsize * kept[place][rows]
        whole = blob.tobytes()
        return [whole[start:end] for start, end in pairwise([0, *ends.tolist()])]

    def decode(self, rows: Sequence[bytes]) -> npt.NDArray[np.void]:
        """A structured array with the layout's fields, one element for each row.

        Raises:
            RowFormatError: damaged, or of another version.
        """
        table = np.zeros(len(rows), dtype=self.dtype)
        for name, value in self.defaults.items():
            table[name] = value
        if not len(rows):
            return table
        blob = np.frombuffer(b"".join(rows), dtype=np.uint8)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        ends = np.cumsum(lengths)
        if lengths.min() < _HEAD.itemsize:
            raise RowFormatError(TABLE, f"a row of {lengths.min()} bytes")
        heads = _taken(blob, ends - lengths, _HEAD)
        for version in np.unique(heads["version"]).tolist():
            check_version(TABLE, version, VERSION)
        table["newest_ms"] = heads["newest_ms"]
        row, part, times_at = _parts(blob, ends - lengths + _HEAD.itemsize, ends, heads["terms"])
        for place, term in enumerate(self._terms):
            found = np.flatnonzero(part["code"] == term.code)
            table[f"count_{place}"][row[found]] = part["count"][found]
            table[f"sum_{place}"][row[found]] = part["sum"][found]
            if term.kept:
                each, nth = np.nonzero(np.arange(term.kept) < part["kept"][found][:, None])
                stored = _taken(blob, times_at[found][each] + _TIME.itemsize * nth, _TIME)
                table[f"times_{place}"][row[found][each], nth] = stored
        return table


def _parts(
    blob: npt.NDArray[np.uint8], at: I64, ends: I64, terms: npt.NDArray[np.uint8]
) -> tuple[I64, npt.NDArray[np.void], I64]:
    """Of every part of every row: the row, the part's head, and where its timestamps begin."""
    at, left = at.copy(), terms.astype(np.int64)
    found: list[tuple[I64, npt.NDArray[np.void], I64]] = []
    while len(rows := np.flatnonzero(left)):
        if (at[rows] + _PART.itemsize > ends[rows]).any():
            raise RowFormatError(TABLE, "a row that ends in the middle")
        part = _taken(blob, at[rows], _PART)
        at[rows] += _PART.itemsize
        found.append((rows, part, at[rows]))
        at[rows] += _TIME.itemsize * part["kept"].astype(np.int64)
        left[rows] -= 1
    if (at != ends).any():
        raise RowFormatError(TABLE, "a row with bytes too few or too many")
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=_PART), np.empty(0, dtype=np.int64)
    rows, part, times_at = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, part, times_at


def _taken(blob: npt.NDArray[np.uint8], at: I64, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values of a packed type at byte positions i64[n]."""
    values: npt.NDArray[Any] = blob[at[:, None] + np.arange(dtype.itemsize)].view(dtype).reshape(len(at))
    return values


def _put(blob: npt.NDArray[np.uint8], at: I64, values: npt.NDArray[Any]) -> None:
    """Write values of a packed type at byte positions i64[n]."""
    width = values.dtype.itemsize
    blob[at[:, None] + np.arange(width)] = values.view(np.uint8).reshape(len(values), width)


def encode_changes(users: U64, rows: Sequence[bytes]) -> bytes:
    """Feed section of n changed users; an empty row is an erased one."""
    lengths = np.array([len(row) for row in rows], dtype="<u4")
    head = _SECTION_HEAD.pack(VERSION, len(rows))
    return b"".join([head, users.astype("<u8").tobytes(), lengths.tobytes(), *rows])


def decode_changes(payload: bytes) -> tuple[U64, list[bytes]]:
    """EntityIds u64[n] and rows.

    Raises:
        RowFormatError: damaged, or of another version.
    """
    check_version(SECTION, payload[0] if payload else -1, VERSION)
    try:
        _, count = _SECTION_HEAD.unpack_from(payload)
        at = _SECTION_HEAD.size
        users = np.frombuffer(payload, "<u8", count, at).astype(np.uint64)
        lengths = np.frombuffer(payload, "<u4", count, at + 8 * count)
    except (struct.error, ValueError) as error:
        raise RowFormatError(SECTION, f"a section of {len(payload)} bytes ({error})") from error
    edges = at + 12 * count + np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if int(edges[-1]) != len(payload):
        raise RowFormatError(SECTION, f"a section of {len(payload)} bytes, its rows end at {edges[-1]}")
    ends = edges.tolist()
    return users, [payload[start:end] for start, end in pairwise(ends)]
