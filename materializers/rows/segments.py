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
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError, check_version
from materializers.rows.fixed import Column, FixedRow
from schemas.keys import row_key, row_keys
from schemas.segment_plan import Term

U64 = npt.NDArray[np.uint64]

TABLE: Final = "segments"
SECTION: Final = TABLE
SEGMENT_TAG: Final = 13
ITEMS_TABLE: Final = "segment_items"
SEGMENT_ITEM_TAG: Final = 14
VERSION: Final = 1

NEVER_MS: Final = -(1 << 62)
"""The time of an event that has not been."""

_HEAD: Final = struct.Struct("<BqB")
_PART: Final = struct.Struct("<IqqH")
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


def segment_key(user: int) -> bytes:
    """Key of one user."""
    return row_key(user, SEGMENT_TAG)


def segment_item_key(item: int) -> bytes:
    """Key of one item."""
    return row_key(item, SEGMENT_ITEM_TAG)


def decode_segment_counts(row: bytes) -> SegmentCounts:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    check_version(TABLE, row[0] if row else -1, VERSION)
    try:
        _, newest_ms, count = _HEAD.unpack_from(row)
        terms, at = {}, _HEAD.size
        for _ in range(count):
            code, events, total, kept = _PART.unpack_from(row, at)
            at += _PART.size
            times = np.frombuffer(row, _TIME, kept, at).tolist()
            at += kept * _TIME.itemsize
            terms[code] = TermCount(events, total, tuple(times))
    except (struct.error, ValueError) as error:
        raise RowFormatError(TABLE, f"a row of {len(row)} bytes ({error})") from error
    if at != len(row):
        raise RowFormatError(TABLE, f"a row of {len(row)} bytes, {at} are used")
    return SegmentCounts(newest_ms, terms)


def encode_segment_counts(counts: SegmentCounts) -> bytes:
    """One row's value; terms without an event are left out."""
    terms = {code: term for code, term in sorted(counts.terms.items()) if term.events}
    parts = [_HEAD.pack(VERSION, counts.newest_ms, len(terms))]
    for code, term in terms.items():
        parts.append(_PART.pack(code, term.events, term.sum, len(term.times)))
        parts.append(np.array(term.times, dtype=_TIME).tobytes())
    return b"".join(parts)


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
        """Rows of equally long columns."""
        newest = columns["newest_ms"].tolist()
        held = [0] * len(newest)
        parts: list[list[bytes]] = [[] for _ in newest]
        for place in self._by_code:
            term = self._terms[place]
            counts = columns[f"count_{place}"].tolist()
            sums = columns[f"sum_{place}"].tolist()
            times = np.ascontiguousarray(columns[f"times_{place}"], dtype=_TIME) if term.kept else None
            for row in np.flatnonzero(columns[f"count_{place}"]).tolist():
                kept = 0 if times is None else min(counts[row], term.kept)
                held[row] += 1
                parts[row].append(_PART.pack(term.code, counts[row], sums[row], kept))
                if times is not None:
                    parts[row].append(times[row, :kept].tobytes())
        heads = [_HEAD.pack(VERSION, at, count) for at, count in zip(newest, held, strict=True)]
        return [b"".join([head, *each]) for head, each in zip(heads, parts, strict=True)]

    def decode(self, rows: Sequence[bytes]) -> npt.NDArray[np.void]:
        """A structured array with the layout's fields, one element for each row.

        Raises:
            RowFormatError: damaged, or of another version.
        """
        table = np.zeros(len(rows), dtype=self.dtype)
        for name, value in self.defaults.items():
            table[name] = value
        place_of = {term.code: place for place, term in enumerate(self._terms)}
        for at, row in enumerate(rows):
            counts = decode_segment_counts(row)
            table["newest_ms"][at] = counts.newest_ms
            for code, term in counts.terms.items():
                place = place_of.get(code)
                if place is None:
                    continue
                table[f"count_{place}"][at] = term.events
                table[f"sum_{place}"][at] = term.sum
                kept = term.times[: self._terms[place].kept]
                if kept:
                    table[f"times_{place}"][at, : len(kept)] = kept
        return table


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
