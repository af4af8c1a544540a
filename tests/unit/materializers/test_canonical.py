"""What tables say, whatever their rows look like."""

from __future__ import annotations

import numpy as np

from materializers.canonical import bucket_blocks, dictionary
from materializers.facts import EntityRef, Fact, raw_facts
from materializers.rows.blocks import BlockColumns, Resolution, block_key, encode_block
from materializers.rows.ordinals import ITEM_IDS, encode_ordinals, ordinal_keys
from schemas.default import default_schema
from schemas.keys import row_key
from tests.memory_rows import MemoryRows

SCHEMA = default_schema()
VIEW = SCHEMA.signals["view"].code
DAY = 20_000 * 1440


def _rows(names: list[str], blocks: dict[bytes, list[tuple[int, int]]]) -> MemoryRows:
    rows = MemoryRows()
    rows.tables[ITEM_IDS] = dict(zip(ordinal_keys(0, len(names)), encode_ordinals(names), strict=True))
    rows.tables["blocks"] = {key: encode_block(_columns(cells)) for key, cells in blocks.items()}
    return rows


def _columns(cells: list[tuple[int, int]]) -> BlockColumns:
    item = np.array([item for item, _ in cells], dtype=np.uint32)
    count = np.array([count for _, count in cells], dtype=np.int64)
    return BlockColumns(item, np.full(len(cells), VIEW, dtype=np.uint32), None, count, count * 1_000_000)


def _facts(rows: MemoryRows) -> dict[tuple[object, ...], Fact]:
    return {fact.key: fact for fact in bucket_blocks("blocks", profiles=False)(rows, SCHEMA)}


def test_blocks_say_the_same_however_they_are_cut_and_whoever_dealt_the_ordinals() -> None:
    minutes = {
        block_key(Resolution.MINUTE, DAY + 61, 0): [(0, 2)],
        block_key(Resolution.MINUTE, DAY + 119, 0): [(0, 1), (1, 5)],
    }
    hours = {
        block_key(Resolution.HOUR, DAY + 60, 0): [(1, 1)],
        block_key(Resolution.HOUR, DAY + 60, 1): [(1, 2), (0, 5)],
    }
    mine, theirs = _facts(_rows(["a", "b"], minutes)), _facts(_rows(["b", "a"], hours))
    assert mine == theirs
    assert mine["a", "view", "day 20000"].detail == ((DAY + 60, (3, 3_000_000)),)


def test_a_day_is_compared_as_a_day_where_one_side_has_no_hours() -> None:
    hours = _facts(_rows(["a"], {block_key(Resolution.HOUR, DAY + 60, 0): [(0, 3)]}))
    day = _facts(_rows(["a"], {block_key(Resolution.DAY, DAY, 0): [(0, 3)]}))
    other = _facts(_rows(["a"], {block_key(Resolution.DAY, DAY, 0): [(0, 4)]}))
    key = ("a", "view", "day 20000")
    assert hours[key].agrees(day[key])
    assert not hours[key].agrees(other[key])
    later = _facts(_rows(["a"], {block_key(Resolution.HOUR, DAY + 120, 0): [(0, 3)]}))
    assert not hours[key].agrees(later[key])


def test_a_damaged_row_is_a_fact_that_says_so() -> None:
    rows = _rows(["a"], {})
    rows.tables["blocks"][b"\x09"] = b""
    rows.tables[ITEM_IDS][b"\x00\x00\x00\x01"] = b"\x63?"
    (block,) = _facts(rows).values()
    assert block.exact.startswith("cannot be read")
    assert [fact.key for fact in dictionary(ITEM_IDS)(rows, SCHEMA)] == [("0x00000001",), ("a",)]


def test_rows_of_plain_tables_are_named_by_entity() -> None:
    rows = MemoryRows()
    rows.tables["t"] = {row_key(7, 3, b"\x01"): b"x", b"reason": b"y"}
    keys = [fact.key for fact in raw_facts("t")(rows, SCHEMA)]
    assert keys == [(EntityRef(7), "tag 3", "0x01"), ("reason",)]


def test_numbers_agree_within_their_bound() -> None:
    def fact(value: float, within: float) -> Fact:
        return Fact("t", (), (), np.array([value]), within)

    assert fact(1e6, 1e-9).agrees(fact(1e6 + 1e-4, 1e-9))
    assert not fact(1e6, 1e-9).agrees(fact(1e6 + 1e-2, 1e-9))
    assert fact(0.1, 1e-6).agrees(fact(0.1 + 9e-7, 1e-6))
    assert not fact(0.1, 1e-6).agrees(fact(0.1 + 2e-6, 1e-6))
    assert not fact(float("nan"), 1e-6).agrees(fact(0.0, 1e-6))
