"""Retention waits for the groups that guard a topic, and for nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.embedded.guards import Guards, expired_before, needed_from
from streams.embedded.metadata import CommittedOffset, Guard, TopicPartition
from streams.embedded.partition import PartitionLog
from tests.unit.embedded.support import LogUnderTest, make_batch

NOW = 1_000_000
BATCHES = 10


class Groups:
    """Committed offsets and members, as the group service has them."""

    def __init__(self) -> None:
        self.offsets: dict[str, dict[TopicPartition, CommittedOffset]] = {}
        self.members: set[str] = set()

    def commit(self, group: str, topic: str, partition: int, offset: int, at_ms: int = 0) -> None:
        committed = CommittedOffset(topic, partition, offset, -1, "", at_ms)
        self.offsets.setdefault(group, {})[(topic, partition)] = committed

    def guards(self, *guards: Guard, dead_after_ms: int = 0) -> Guards:
        return Guards(
            guards, dead_after_ms, lambda group: self.offsets.get(group, {}), self.members.__contains__, 0
        )


@pytest.fixture
def log(tmp_path: Path) -> PartitionLog:
    """Ten segments of one record each, all of which have expired but the last."""
    made = LogUnderTest(tmp_path, {"segment.bytes": "1024", "retention.ms": "10"})
    for number in range(BATCHES):
        made.append(make_batch([(b"k", bytes(1_000))], timestamp=number))
    assert len(made.log.segments) == BATCHES
    return made.log


def test_without_guards_everything_expired_may_go(log: PartitionLog) -> None:
    guards = Groups().guards()
    assert guards.retention_start(log, NOW) == expired_before(log, NOW) == BATCHES - 1
    assert guards.held == {}


@pytest.mark.parametrize("offset", range(BATCHES + 1))
def test_what_a_group_has_not_read_stays(log: PartitionLog, offset: int) -> None:
    groups = Groups()
    groups.commit("g", "topic", 0, offset)
    guards = groups.guards(Guard("g"))
    assert guards.retention_start(log, NOW) == min(offset, BATCHES - 1)
    if offset < BATCHES - 1:
        held = guards.held[("topic", 0)]
        assert (held.group, held.offset) == ("g", offset)
        assert held.bytes == sum(segment.size for segment in log.segments[offset : BATCHES - 1])
    else:
        assert guards.held == {}


def test_the_slowest_of_several_groups_decides(log: PartitionLog) -> None:
    groups = Groups()
    groups.commit("fast", "topic", 0, 7)
    groups.commit("slow", "topic", 0, 3)
    groups.commit("unnamed", "topic", 0, 1)
    guards = groups.guards(Guard("fast"), Guard("slow"))
    assert guards.retention_start(log, NOW) == 3
    assert guards.held[("topic", 0)].group == "slow"
    groups.commit("slow", "topic", 0, 9)
    assert guards.retention_start(log, NOW) == 7


def test_a_group_that_reads_other_topics_guards_nothing_here(log: PartitionLog) -> None:
    groups = Groups()
    groups.commit("g", "other", 0, 0)
    assert groups.guards(Guard("g", ("third",))).retention_start(log, NOW) == BATCHES - 1


def test_a_named_topic_is_guarded_before_the_first_commit(log: PartitionLog) -> None:
    assert Groups().guards(Guard("g", ("topic",))).retention_start(log, NOW) == 0


def test_a_partition_without_commit_is_guarded_when_its_topic_is_read() -> None:
    groups = Groups()
    groups.commit("g", "topic", 5, 100)
    offsets = groups.offsets["g"]
    assert needed_from(Guard("g"), offsets, "topic", 5) == 100
    assert needed_from(Guard("g"), offsets, "topic", 0) == 0
    assert needed_from(Guard("g"), offsets, "other", 0) is None


def test_a_group_that_is_gone_guards_for_ever_unless_told_otherwise(log: PartitionLog) -> None:
    groups = Groups()
    groups.commit("g", "topic", 0, 2, at_ms=NOW)
    for_ever, an_hour = groups.guards(Guard("g")), groups.guards(Guard("g"), dead_after_ms=3_600_000)
    a_year_later = NOW + 365 * 24 * 3_600_000
    for guards in (for_ever, an_hour):
        guards.look(NOW + 3_600_000)
        assert guards.retention_start(log, a_year_later) == 2
        guards.look(NOW + 3_600_001)
    assert for_ever.retention_start(log, a_year_later) == 2
    assert an_hour.is_dead("g")
    assert an_hour.retention_start(log, a_year_later) == BATCHES - 1


def test_members_or_a_commit_bring_a_guard_back() -> None:
    groups = Groups()
    guards = groups.guards(Guard("g", ("topic",)), dead_after_ms=1_000)
    guards.look(1_001)
    assert guards.is_dead("g")
    groups.members.add("g")
    guards.look(5_000)
    assert not guards.is_dead("g")
    groups.members.clear()
    guards.look(6_000)
    assert not guards.is_dead("g")
    guards.look(6_001)
    assert guards.is_dead("g")
    groups.commit("g", "topic", 0, 1, at_ms=6_500)
    guards.look(7_000)
    assert not guards.is_dead("g")


def test_after_a_restart_the_clock_of_absence_begins_anew() -> None:
    """Memberships are not durable: a quiet group whose last commit is old has its time to come back."""
    groups = Groups()
    groups.commit("g", "topic", 0, 1, at_ms=0)
    started = 10_000_000
    guards = Guards((Guard("g"),), 1_000, groups.offsets.__getitem__, groups.members.__contains__, started)
    guards.look(started + 1_000)
    assert not guards.is_dead("g")


def test_the_start_never_moves_back(log: PartitionLog) -> None:
    groups = Groups()
    groups.commit("g", "topic", 0, 2)
    log.advance_start(5)
    assert groups.guards(Guard("g")).retention_start(log, NOW) == 5


def test_notes_on_deleted_topics_are_dropped(log: PartitionLog) -> None:
    guards = Groups().guards(Guard("g", ("topic",)))
    guards.retention_start(log, NOW)
    guards.forget(lambda where: where != ("topic", 0))
    assert guards.held == {}
