"""Entity records become writes, and profile records where a user's dimensions change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from materializers.materializer import Scope
from schemas.default import default_schema
from schemas.records.profile_record import decode_profile_record
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.shard_harness import PARTITIONS, Record, ShardSite, flushed

USERS = "tidal.users"


@pytest.fixture
def site(tmp_path: Path) -> ShardSite:
    return ShardSite(tmp_path, default_schema())


def _user(offset: int, name: str, value: dict[str, Any] | None, partition: int = 3) -> Record:
    raw = None if value is None else json.dumps(value).encode()
    return Record(offset, raw, key=name.encode(), topic=USERS, partition=partition)


def _told(site: ShardSite) -> list[tuple[str, str, tuple[int, int]]]:
    records = [decode_profile_record(each.value) for each in site.forwarder.sent]
    return [(record.user, record.profile_string, tuple(record.source)) for record in records]


def test_only_a_change_of_dimensions_sends_a_profile(site: ShardSite) -> None:
    shard = site.entity_shard(3, MemoryRows())
    shard.fold(
        USERS,
        [
            _user(0, "ann", {"locale": "US"}),
            _user(1, "bob", {}),
            _user(2, "ann", {"locale": "US", "gender": None}),
            _user(3, "ann", {"locale": "DE"}),
        ],
    )
    assert _told(site) == [("ann", '{"locale":"US"}', (3, 0)), ("ann", '{"locale":"DE"}', (3, 3))]
    assert {each.partition for each in site.forwarder.sent} == {partition_for(b"ann", PARTITIONS)}
    assert [each.type for each in site.forwarder.sent] == [b"profile"] * 2


def test_what_was_sent_is_remembered_over_a_restart(site: ShardSite) -> None:
    rows = MemoryRows()
    shard = site.entity_shard(3, rows)
    shard.fold(USERS, [_user(0, "ann", {"locale": "US"})])
    meta = flushed(shard, rows)
    again = site.entity_shard(3, rows, meta)
    site.forwarder.sent.clear()
    again.fold(USERS, [_user(0, "ann", {"locale": "US"}), _user(1, "ann", {"locale": "US"})])
    assert _told(site) == []
    again.fold(USERS, [_user(2, "ann", None)])
    assert _told(site) == [("ann", "{}", (3, 2))]


def test_each_topic_has_its_own_applied_offset(site: ShardSite) -> None:
    shard = site.entity_shard(3, MemoryRows())
    shard.fold(USERS, [_user(7, "ann", {})])
    assert shard.applied(USERS) == 7
    assert shard.applied("tidal.items") == -1
    shard.fold("tidal.items", [Record(0, b'{"title":"t"}', key=b"i", topic="tidal.items")])
    assert [batch.kind for batch in site.views[Scope.ENTITY][-1].batches] == ["user", "item"]


def test_a_bad_record_is_refused_and_the_others_go_on(site: ShardSite) -> None:
    shard = site.entity_shard(3, MemoryRows())
    shard.fold(USERS, [Record(0, b"{", key=b"ann", topic=USERS), _user(1, "bob", {})])
    writes = site.views[Scope.ENTITY][-1].batches[0].writes
    assert [write.id for write in writes] == ["bob"]
    assert shard.applied(USERS) == 1
