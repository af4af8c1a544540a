"""Every partition is told of the items that conditions of segments hold for: changes alone, and all of them
when the schema asks for something new.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from materializers.registry import default_registry
from schemas.loading import load_schema
from schemas.model import Schema
from schemas.records.item_conditions import ITEM_CONDITIONS_TYPE, decode_item_conditions
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.shard_harness import PARTITIONS, Record, ShardSite, flushed

ITEMS = "tidal.items"
HOME = 2
NAMES = [
    name for name in (f"track{n}" for n in range(999)) if partition_for(name.encode(), PARTITIONS) == HOME
]
JAZZ = "count(like, category = jazz, 30d) >= 5"
LONG = "count(view, duration_s > 60, 7d) >= 2"


def _schema(**segments: str) -> Schema:
    return load_schema({"name": "x", "segments": segments})


def _item(offset: int, name: str, value: dict[str, Any] | None) -> Record:
    raw = None if value is None else json.dumps(value).encode()
    return Record(offset, raw, key=name.encode(), topic=ITEMS, partition=HOME)


def _told(site: ShardSite) -> list[tuple[int, str, tuple[str, ...], int]]:
    """(partition, item, conditions, source offset) of what was sent since the last call."""
    sent = [each for each in site.forwarder.sent if each.type == ITEM_CONDITIONS_TYPE]
    site.forwarder.sent.clear()
    records = [(each.partition, decode_item_conditions(each.value or b"")) for each in sent]
    return [(partition, told.item, told.holds, told.source[1]) for partition, told in records]


def test_only_a_change_is_told_and_to_every_partition(tmp_path: Path) -> None:
    site, rows = ShardSite(tmp_path, _schema(jazz=JAZZ, long=LONG)), MemoryRows()
    shard = site.entity_shard(HOME, rows)
    track = NAMES[0]
    steps: list[tuple[dict[str, Any] | None, tuple[str, ...] | None]] = [
        ({"category": "rock"}, None),
        ({"category": "jazz"}, ("category = jazz",)),
        ({"category": "jazz", "title": "other"}, None),
        ({"category": "jazz", "duration_s": 61}, ("category = jazz", "duration_s > 60.0")),
        ({"status": "archived", "duration_s": 61}, ("duration_s > 60.0",)),
        ({"status": "deleted", "duration_s": 61}, ()),
        ({"category": "jazz"}, ("category = jazz",)),
        (None, ()),
        (None, None),
    ]
    for offset, (record, expected) in enumerate(steps):
        shard.fold(ITEMS, [_item(offset, track, record)])
        wanted = [] if expected is None else [(n, track, expected, offset) for n in range(PARTITIONS)]
        assert _told(site) == wanted
        if offset % 2:
            meta = flushed(shard, rows)
            shard = site.entity_shard(HOME, rows, meta)


def test_a_schema_without_item_conditions_tells_nothing(tmp_path: Path) -> None:
    site = ShardSite(tmp_path, _schema(busy="count(like, 30d) >= 5"))
    site.entity_shard(HOME, MemoryRows()).fold(ITEMS, [_item(0, NAMES[0], {"category": "jazz"})])
    assert _told(site) == []


def test_all_items_are_gone_through_when_the_conditions_are_others(tmp_path: Path) -> None:
    rows, tracks = MemoryRows(), NAMES[:80]
    site = ShardSite(tmp_path / "1", _schema(), default_registry())
    shard = site.entity_shard(HOME, rows)
    shard.fold(ITEMS, [_item(n, name, {"category": "jazz"}) for n, name in enumerate(tracks)])
    meta = flushed(shard, rows)

    site = ShardSite(tmp_path / "2", _schema(jazz=JAZZ), default_registry())
    shard = site.entity_shard(HOME, rows, meta)
    assert shard.has_more_to_tell
    changed = _item(80, tracks[3], {"category": "rock"})
    shard.fold(ITEMS, [changed])
    told: dict[str, tuple[str, ...]] = {}
    for flush in range(9):
        meta = flushed(shard, rows)
        told |= {item: holds for _, item, holds, _ in _told(site)}
        if flush == 1:  # killed on the way: begins anew, and tells what the rows do not know of
            shard = site.entity_shard(HOME, rows, meta)
        if not shard.has_more_to_tell:
            break
    assert not shard.has_more_to_tell
    assert told == {name: ("category = jazz",) for name in tracks if name != tracks[3]}

    flushed(shard, rows)
    meta = flushed(shard, rows)
    again = ShardSite(tmp_path / "3", _schema(jazz=JAZZ), default_registry())
    assert not again.entity_shard(HOME, rows, meta).has_more_to_tell
