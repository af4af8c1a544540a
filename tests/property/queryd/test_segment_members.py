"""Who is in a segment at any time, as queryd says it and as a plain model does: users enter and leave as time
passes, with late events, events from the future, and without any event at all.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from queryd.hot.segments import SegmentMembers
from schemas.ids import entity_id
from tests.engine_site import MemoryTables
from tests.memory_rows import MemoryRows
from tests.segment_site import HOME, ITEMS, JAZZ, JAZZ_AND_LONG, KINDS, LONG, SCHEMA, USERS, Life, Step
from tests.shard_harness import NOW_MS

PORTIONS = 10
TIMES_OF_A_PORTION = 20
ID_OF = {entity_id(user): user for user in USERS}


class Clock:
    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


def steps_of(chance: random.Random, portion: int) -> list[Step]:
    """Thirty events about six seconds of a minute, some late, some ahead; now and then something else."""
    steps = []
    for _ in range(30):
        second = 6 * portion + chance.randrange(6)
        second = max(0, second - chance.randrange(30)) if chance.random() < 0.2 else second
        second = min(60, second + chance.randrange(10)) if chance.random() < 0.05 else second
        person, thing = chance.randrange(len(USERS)), chance.randrange(len(ITEMS))
        weight = chance.choice([1.0, 0.5, -1.0])
        steps.append(Step("event", person, thing, chance.randrange(len(KINDS)), second, weight))
    if chance.random() < 0.5:
        holds = chance.choice([(), (JAZZ,), (LONG,), (JAZZ, LONG, JAZZ_AND_LONG)])
        steps[5:5] = [Step("told", item=chance.randrange(len(ITEMS)), holds=holds)]
    if chance.random() < 0.3:
        steps[20:20] = [Step("forget", chance.randrange(len(USERS)))]
    return steps


def following(rows: MemoryRows, clock: Clock) -> SegmentMembers:
    """Members as they are read when the engine starts."""
    members = SegmentMembers(MemoryTables({HOME: rows}), SCHEMA, clock)
    for _ in members.scan(HOME):
        pass
    return members


@settings(max_examples=3)
@given(st.integers(0, 1 << 30))
def test_members_at_200_random_times_are_those_of_a_plain_model(seed: int) -> None:
    chance, clock = random.Random(seed), Clock()
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), chance.choice([0, 1 << 20]))
        fed = following(life.rows, clock)
        for portion in range(PORTIONS):
            for step in steps_of(chance, portion):
                life.take(step)
            life.fold(flush=True)
            for section, payload in life.rows.fed:
                if section == SegmentMembers.SECTION:
                    fed.apply(HOME, payload)
            life.rows.fed.clear()
            if portion == PORTIONS // 2:
                fed.drop(HOME)
                list(fed.scan(HOME))
            clean = life.clean()
            scanned = following(life.rows, clock)
            for _ in range(TIMES_OF_A_PORTION):
                clock.now_ms = NOW_MS - 60_000 + 6_000 * portion + chance.randrange(40_000)
                for name in SCHEMA.segments:
                    expected = clean.segments.members(name, clock.now_ms)
                    assert {ID_OF[each] for each in fed.members(name).tolist()} == expected
                    assert {ID_OF[each] for each in scanned.members(name).tolist()} == expected
                user = chance.choice(USERS)
                for stay in fed.of_user(user, clock.now_ms):
                    assert user in clean.segments.members(stay.segment, clock.now_ms)
                    if stay.until_ms is not None:
                        assert user in clean.segments.members(stay.segment, stay.until_ms - 1)
                        assert user not in clean.segments.members(stay.segment, stay.until_ms)


def test_users_leave_to_the_millisecond_and_come_back() -> None:
    """``lapsed`` is entered, and ``keen`` left, by time alone."""
    clock = Clock()
    steps = [
        Step("told", item=0, holds=(JAZZ,)),
        *(Step("event", kind=1, second=second) for second in (10, 11, 13)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), 1 << 20)
        for step in steps:
            life.take(step)
        life.fold(flush=True)
        members = following(life.rows, clock)
        began_ms = NOW_MS - 60_000
        for clock.now_ms, keen, lapsed in (
            (began_ms + 13_000, 1, 0),
            (began_ms + 22_999, 1, 0),
            (began_ms + 23_000, 1, 1),
            (began_ms + 29_999, 1, 1),
            (began_ms + 30_000, 0, 1),
            (began_ms + 20_000, 1, 0),
        ):
            assert (members.count("keen"), members.count("lapsed")) == (keen, lapsed)
        assert members.nbytes > 0
