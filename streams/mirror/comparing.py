"""Reads a partition of two logs side by side and tells whether they hold the same.

In a compacted topic either side may have compacted in the meantime: a record that only one of them has is
right when it is a delete or a later record has its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from streams.mirror.reader import Place, committed_records
from streams.mirror.runs import Copied


class Comparison(NamedTuple):
    """`same`: records that are alike on both sides; `differs_at`: the first offset that is wrong, or -1."""

    same: int
    differs_at: int


def compare(
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    place: Place,
    bounds: tuple[int, int],
    *,
    is_compacted: bool,
) -> Comparison:
    """Compare the records of `bounds` (first offset, next offset) in two logs, given by client options.

    Raises MirrorError when one of them is silent.
    """
    sides = [_records(options, place, bounds) for options in (left, right)]
    return compare_records(*sides, is_compacted=is_compacted)


def compare_records(left: Iterator[Copied], right: Iterator[Copied], *, is_compacted: bool) -> Comparison:
    """Both in the order of their offsets."""
    same = 0
    # By key: the offset of a record that only one side has and that a later one has to excuse.
    alone: dict[bytes | None, int] = {}
    mine, other = next(left, None), next(right, None)
    while mine is not None or other is not None:
        if mine is not None and other is not None and mine.offset == other.offset:
            if mine != other:
                return Comparison(same, mine.offset)
            same += 1
            alone.pop(mine.key, None)
            mine, other = next(left, None), next(right, None)
            continue
        if other is None or (mine is not None and mine.offset < other.offset):
            lonely, mine = mine, next(left, None)
        else:
            lonely, other = other, next(right, None)
        assert lonely is not None, "one side is not at its end"
        if not is_compacted:
            return Comparison(same, lonely.offset)
        alone.pop(lonely.key, None)
        if lonely.value is not None:
            alone[lonely.key] = lonely.offset
    return Comparison(same, min(alone.values(), default=-1))


def _records(options: Mapping[str, Any], place: Place, bounds: tuple[int, int]) -> Iterator[Copied]:
    start, end = bounds
    for found in committed_records(options, {place: start}, {place: end}):
        yield from found.get(place, ())
