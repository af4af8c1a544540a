"""What the shards' own tables say."""

from __future__ import annotations

import numpy as np

from materializers.refold.own_tables import digests
from materializers.shards.dedup import DEDUP_TABLE
from schemas.default import default_schema
from tests.memory_rows import MemoryRows

SCHEMA = default_schema()


def _rows(*cuts: list[tuple[int, int, int]]) -> MemoryRows:
    rows, first = MemoryRows(), 0
    rows.tables[DEDUP_TABLE.name] = {}
    for cut in cuts:
        key = (3).to_bytes(4, "big") + first.to_bytes(4, "big")
        rows.tables[DEDUP_TABLE.name][key] = np.array(cut, dtype="<u8").tobytes()
        first += len(cut)
    return rows


def test_digests_say_the_same_wherever_flushes_fell_and_one_other_digest_shows() -> None:
    high = 0xAB << 56
    events = [(high + 2, 5, 6), (1, 2, 3), (high + 1, 9, 9), (1, 2, 2)]
    whole, cut = _rows(events), _rows(events[2:], events[:2])
    said = [(fact.key, fact.exact) for fact in digests(whole, SCHEMA)]
    assert said == [(fact.key, fact.exact) for fact in digests(cut, SCHEMA)]
    assert [key for key, _ in said] == [("generation 3", "users 0x00…"), ("generation 3", "users 0xab…")]
    other = [(fact.key, fact.exact) for fact in digests(_rows([*events[:3], (1, 2, 4)]), SCHEMA)]
    assert other[0] != said[0]
    assert other[1] == said[1]


def test_a_row_that_holds_no_whole_digests_is_named() -> None:
    rows = MemoryRows()
    rows.tables[DEDUP_TABLE.name] = {bytes(8): b"x"}
    (fact,) = digests(rows, SCHEMA)
    assert "cannot be read" in fact.exact
