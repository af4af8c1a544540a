"""Copies the topics and groups of one log into another and proves that the copy is the same.

Run it once while everything works, then stop what writes and run it again: it goes on where it ended. After
that second run positions, checkpoints and committed offsets mean the same at the target as at the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from streams.broker_security import BrokerSecurity, broker_options
from streams.errors import MirrorError
from streams.mirror.comparing import compare
from streams.mirror.reader import Place, committed_records
from streams.mirror.runs import Copied, Runs, Step
from streams.mirror.topics import Cluster
from streams.mirror.writer import StepWriter


class Log(NamedTuple):
    """Where a log is; `security` None: as this process reaches its own."""

    brokers: str
    security: BrokerSecurity | None = None


class MirrorReport(msgspec.Struct, frozen=True):
    """What one run did. `compared`: records that were read again on both sides and are the same."""

    topics: int
    partitions: int
    copied: int
    groups: int
    compared: int


def mirror(
    source: Log,
    target: Log,
    topics: Sequence[str] = (),
    *,
    replication: int = -1,
    verify: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> MirrorReport:
    """Copy `topics` (all without any): whole records, settings, and the committed offsets of groups.

    verify: read both logs again and compare.

    Raises MirrorError; what was copied until then stays, and another run goes on there.
    """
    old = Cluster(broker_options(*source), f"source {source.brokers}")
    new = Cluster(broker_options(*target), f"target {target.brokers}")
    counts = old.partitions()
    unknown = [name for name in topics if name not in counts]
    if unknown:
        raise MirrorError(f"{old.name} has no topic {', '.join(unknown)}")
    names = list(topics) or sorted(counts)
    configs = {name: old.config(name) for name in names}
    _prepare(new, names, counts, configs, replication)
    writer = StepWriter(new.options, new.bounds)
    copied = compared = 0
    for name in names:
        places = [(name, index) for index in range(counts[name])]
        ends = {place: end for place, (_, end) in old.bounds(places).items()}
        count = _copy(old, new, writer, ends)
        copied += count
        say(f"{name}: {count:,} records copied")
        if verify:
            compared += _compare(old, new, ends, is_compacted="compact" in configs[name]["cleanup.policy"])
        new.settle(name, configs[name])
    groups = _copy_groups(old, new, set(names))
    return MirrorReport(len(names), sum(counts[name] for name in names), copied, groups, compared)


def _prepare(
    new: Cluster,
    names: Sequence[str],
    counts: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
    replication: int,
) -> None:
    present = new.partitions()
    for name in names:
        if name not in present:
            new.create(name, counts[name], configs[name], replication)
        elif present[name] != counts[name]:
            raise MirrorError(
                f"{name} has {counts[name]} partitions at the source and {present[name]} at the target; "
                "delete it there, it is made anew"
            )
        else:
            new.fill(name)


def _copy(old: Cluster, new: Cluster, writer: StepWriter, ends: Mapping[Place, int]) -> int:
    """Copy the partitions of one topic up to `ends`; returns the number of records."""
    before = new.bounds(ends)
    lows = {place: low for place, (low, _) in old.bounds(ends).items()}
    runs: dict[Place, Runs] = {}
    for place, (_, high) in before.items():
        if high > ends[place]:
            raise MirrorError(
                f"{_named(place)} ends at offset {ends[place]} at the source and at {high} at the target: "
                "it is no copy; delete the topic there"
            )
        writer.begin_at(place, high)
        if high > 0:
            runs[place] = Runs(_named(place), high)
    starts = {place: max(high, lows[place]) for place, (_, high) in before.items()}
    first: dict[Place, int] = {}
    count = 0
    for found in committed_records(old.options, starts, ends):
        for place, records in found.items():
            if place not in runs:
                # A copy from the beginning: whatever lies in front of its first record is only filled.
                first[place] = records[0].offset
                writer.fill_start(place, records[0].offset, records[0].timestamp_ms)
                runs[place] = Runs(_named(place), records[0].offset)
        writer.write({place: _steps(runs[place], records) for place, records in found.items()})
        count += sum(map(len, found.values()))
    for place, end in ends.items():
        if place not in runs:
            first[place] = end
            writer.fill_start(place, end, 0)
            runs[place] = Runs(_named(place), end)
    writer.write({place: runs[place].finish(end) for place, end in ends.items()})
    _check_ends(new, ends)
    hidden = {place: offset for place, offset in first.items() if offset}
    if hidden:
        new.delete_before(hidden)
    return count


def _steps(runs: Runs, records: Sequence[Copied]) -> list[Step]:
    steps = [step for record in records for step in runs.add(record)]
    return steps + runs.flush()


def _check_ends(new: Cluster, ends: Mapping[Place, int]) -> None:
    for place, (_, high) in new.bounds(ends).items():
        if high != ends[place]:
            raise MirrorError(f"{_named(place)} ends at {high} at the target, {ends[place]} was due")


def _copy_groups(old: Cluster, new: Cluster, names: set[str]) -> int:
    count = 0
    for group, offsets in old.committed().items():
        wanted = [offset for offset in offsets if offset.topic in names]
        if wanted:
            new.commit(group, wanted)
            count += 1
    return count


def _compare(old: Cluster, new: Cluster, ends: Mapping[Place, int], *, is_compacted: bool) -> int:
    """Read both logs from where both begin; returns the number of records that are the same."""
    left, right = old.bounds(ends), new.bounds(ends)
    same = 0
    for place, end in ends.items():
        bounds = (max(left[place][0], right[place][0]), end)
        found = compare(old.options, new.options, place, bounds, is_compacted=is_compacted)
        if found.differs_at >= 0:
            raise MirrorError(
                f"{_named(place)} is not the same on both sides from offset {found.differs_at} on; an "
                "earlier run was interrupted in a bad moment, or somebody else writes to the target: "
                "delete the topic there and start again"
            )
        same += found.same
    return same


def _named(place: Place) -> str:
    return f"{place[0]} partition {place[1]}"
