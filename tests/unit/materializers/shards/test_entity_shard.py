"""Entity records become writes, profile records where a user's dimensions change, and erasures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from materializers.batches import EdgeWrite
from materializers.materializer import Scope
from materializers.rows.entities import EDGES, StoredEdge, edge_keys_of, encode_edge
from materializers.rows.erasures import ErasurePart, decode_erasure, split_erasure_key
from schemas.default import default_schema
from schemas.ids import entity_id
from schemas.records.edge_key import edge_key
from schemas.records.forget_record import (
    FORGET_HEADERS,
    ForgottenRecord,
    decode_forget,
    decode_forgotten,
    encode_forget,
)
from schemas.records.profile_record import decode_profile_record
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.shard_harness import NOW_MS, PARTITIONS, Record, Sent, ShardSite, flushed

USERS = "tidal.users"
ITEMS = "tidal.items"
RELATIONSHIPS = "tidal.relationships"
HOME = 3


def _at_home(prefix: str, count: int) -> list[str]:
    names = (f"{prefix}{number}" for number in range(1000))
    return [name for name in names if partition_for(name.encode(), PARTITIONS) == HOME][:count]


ANN, BOB = _at_home("user", 2)
FILM = _at_home("film", 1)[0]
FAR = next(
    name for name in (f"far{n}" for n in range(99)) if partition_for(name.encode(), PARTITIONS) != HOME
)


@pytest.fixture
def site(tmp_path: Path) -> ShardSite:
    return ShardSite(tmp_path, default_schema())


def _user(offset: int, name: str, value: dict[str, Any] | None, partition: int = HOME) -> Record:
    raw = None if value is None else json.dumps(value).encode()
    return Record(offset, raw, key=name.encode(), topic=USERS, partition=partition)


def _edge(offset: int, source: str, target: str, value: bytes | None = b"{}") -> Record:
    key = edge_key("follows", source, target)
    return Record(offset, value, key=key, topic=RELATIONSHIPS, partition=HOME)


def _told(site: ShardSite) -> list[tuple[str, str, tuple[int, int]]]:
    sent = [each for each in site.forwarder.sent if each.type == b"profile"]
    records = [decode_profile_record(each.value or b"") for each in sent]
    return [(record.user, record.profile_string, record.source) for record in records]


def _received(sent: Sent, offset: int) -> Record:
    """What a shard sent, as the log delivers it."""
    return Record(
        offset, sent.value, sent.key, sent.timestamp or NOW_MS, sent.headers, sent.topic, sent.partition
    )


def test_only_a_change_of_dimensions_sends_a_profile(site: ShardSite) -> None:
    shard = site.entity_shard(HOME, MemoryRows())
    shard.fold(
        USERS,
        [
            _user(0, ANN, {"locale": "US"}),
            _user(1, BOB, {}),
            _user(2, ANN, {"locale": "US", "gender": None}),
            _user(3, ANN, {"locale": "DE"}),
        ],
    )
    assert _told(site) == [(ANN, '{"locale":"US"}', (HOME, 0)), (ANN, '{"locale":"DE"}', (HOME, 3))]
    assert {each.partition for each in site.forwarder.sent} == {HOME}
    assert [each.type for each in site.forwarder.sent] == [b"profile"] * 2


def test_what_was_sent_is_remembered_over_a_restart(site: ShardSite) -> None:
    rows = MemoryRows()
    shard = site.entity_shard(HOME, rows)
    shard.fold(USERS, [_user(0, ANN, {"locale": "US"})])
    meta = flushed(shard, rows)
    again = site.entity_shard(HOME, rows, meta)
    site.forwarder.sent.clear()
    again.fold(USERS, [_user(0, ANN, {"locale": "US"}), _user(1, ANN, {"locale": "US"})])
    assert _told(site) == []
    again.fold(USERS, [_user(2, ANN, {"status": "deleted", "locale": "US"})])
    assert _told(site) == [(ANN, "{}", (HOME, 2))]


def test_each_topic_has_its_own_applied_offset(site: ShardSite) -> None:
    shard = site.entity_shard(HOME, MemoryRows())
    shard.fold(USERS, [_user(7, ANN, {})])
    assert shard.applied(USERS) == 7
    assert shard.applied(ITEMS) == -1
    shard.fold(ITEMS, [Record(0, b'{"title":"t"}', key=FILM.encode(), topic=ITEMS, partition=HOME)])
    assert [batch.kind for batch in site.views[Scope.ENTITY][-1].batches] == ["user", "item"]


def test_a_bad_record_is_refused_and_the_others_go_on(site: ShardSite) -> None:
    shard = site.entity_shard(HOME, MemoryRows())
    shard.fold(USERS, [Record(0, b"{", key=ANN.encode(), topic=USERS, partition=HOME), _user(1, BOB, {})])
    writes = site.views[Scope.ENTITY][-1].batches[0].writes
    assert [write.id for write in writes] == [BOB]
    assert shard.applied(USERS) == 1


def test_an_id_whose_entity_id_is_taken_is_refused(site: ShardSite, monkeypatch: pytest.MonkeyPatch) -> None:
    real = entity_id
    twins = {BOB: real(ANN)}
    monkeypatch.setattr("materializers.rows.entities.entity_id", lambda name: twins.get(name, real(name)))
    rejected: dict[str, int] = {}
    shard = site.entity_shard(HOME, MemoryRows())
    shard._rejects.count = lambda code, times=1: rejected.update({code: times})  # type: ignore[method-assign]
    shard.fold(USERS, [_user(0, ANN, {}), _user(1, BOB, {}), _user(2, ANN, None), _user(3, BOB, {})])
    writes = site.views[Scope.ENTITY][-1].batches[0].writes
    assert [(write.offset, write.id) for write in writes] == [(0, ANN), (2, ANN), (3, BOB)]
    assert rejected == {"id_collision": 1}


def test_a_deleted_user_is_erased_by_records_for_everybody(site: ShardSite) -> None:
    rows = MemoryRows()
    shard = site.entity_shard(HOME, rows)
    shard.fold(USERS, [_user(0, ANN, {"locale": "US"}), _user(1, ANN, None)])
    signals = [each for each in site.forwarder.sent if each.topic == "tidal.signals"]
    assert [each.type for each in signals] == [b"profile", b"forget"]
    assert {each.partition for each in signals} == {HOME}
    forget = decode_forget(signals[1].value or b"")
    assert (forget.user, forget.source) == (ANN, (HOME, 1))
    told = [each for each in site.forwarder.sent if each.topic == RELATIONSHIPS]
    assert sorted(each.partition for each in told) == list(range(PARTITIONS))
    for each in told:
        assert decode_forgotten(each.value or b"").entity_id == entity_id(ANN)
        assert ANN.encode() not in (each.value or b"") + (each.key or b"")
    flushed(shard, rows)
    assert not rows.tables.get("stamped_profiles")
    (key, value), *more = rows.tables["erasures"].items()
    assert more == []
    assert split_erasure_key(key) == ((HOME, 1), ErasurePart.RECORD)
    assert decode_erasure(value).rows == {"stamped_profiles": 1}


def _forgotten(offset: int, name: str, source: tuple[int, int]) -> Record:
    value = encode_forget(ForgottenRecord(entity_id(name), source, NOW_MS))
    return Record(offset, value, b"erasure", NOW_MS, FORGET_HEADERS, RELATIONSHIPS, HOME)


def test_edges_before_the_erasure_go_and_those_after_stay(site: ShardSite) -> None:
    rows = MemoryRows()
    for key in edge_keys_of("follows", FAR, ANN):  # as an earlier flush left it
        rows.tables.setdefault(EDGES, {})[key] = encode_edge(StoredEdge(FAR, ANN, 1.0, NOW_MS, 0))
    shard = site.entity_shard(HOME, rows)
    shard.fold(
        RELATIONSHIPS,
        [
            _edge(1, ANN, "c1"),
            _edge(2, ANN, "c2"),
            _edge(3, ANN, "c2", None),
            _edge(4, BOB, "c1"),
            _forgotten(5, ANN, (HOME, 9)),
            _edge(6, ANN, "c3"),
            _forgotten(7, ANN, (HOME, 9)),
        ],
    )
    writes: list[EdgeWrite] = site.views[Scope.ENTITY][-1].batches[0].writes
    deleted = [(write.source, write.target) for write in writes if write.offset == 5]
    assert deleted == sorted([(ANN, "c1"), (FAR, ANN)])
    assert all(write.record is None for write in writes if write.offset == 5)
    assert [write.offset for write in writes] == [1, 2, 3, 4, 5, 5, 6]
    taken_out = {each.key for each in site.forwarder.sent if each.value is None}
    assert taken_out == {edge_key("follows", ANN, "c1"), edge_key("follows", FAR, ANN), b"erasure"}


def test_a_record_under_a_connectors_key_is_copied_home_once(site: ShardSite) -> None:
    there = site.entity_shard(1, MemoryRows())
    key = b'{"id":"' + ANN.encode() + b'"}'
    change = {"before": None, "after": {"id": ANN, "locale": "US"}, "op": "c", "source": {}, "ts_ms": 1}
    there.fold(USERS, [Record(4, json.dumps(change).encode(), key, NOW_MS - 5, (), USERS, 1)])
    assert there.copied == 1
    assert site.views[Scope.ENTITY][-1].batches[0].writes == []
    (copy,) = site.forwarder.sent
    assert (copy.topic, copy.partition, copy.key) == (USERS, HOME, ANN.encode())
    assert json.loads(copy.value or b"") == {"id": ANN, "locale": "US"}
    assert copy.timestamp == NOW_MS - 5
    rows = MemoryRows()
    home = site.entity_shard(HOME, rows)
    home.fold(USERS, [_received(copy, 0), _user(1, ANN, {"locale": "DE"}), _received(copy, 2)])
    assert [write.offset for write in site.views[Scope.ENTITY][-1].batches[0].writes] == [0, 1]
    again = site.entity_shard(HOME, rows, flushed(home, rows))
    again.fold(USERS, [_received(copy, 3)])
    assert site.views[Scope.ENTITY][-1].batches[0].writes == []


def test_a_delete_takes_the_original_of_a_copy_out_of_the_log(site: ShardSite) -> None:
    there = site.entity_shard(1, MemoryRows())
    key = json.dumps(FILM).encode()
    there.fold(ITEMS, [Record(4, b'{"title":"t"}', key, NOW_MS, (), ITEMS, 1)])
    (copy,) = site.forwarder.sent
    rows = MemoryRows()
    home = site.entity_shard(HOME, rows)
    home.fold(ITEMS, [_received(copy, 0)])
    again = site.entity_shard(HOME, rows, flushed(home, rows))
    assert len(rows.tables["originals"]) == 1
    site.forwarder.sent.clear()
    again.fold(ITEMS, [Record(1, None, FILM.encode(), NOW_MS, (), ITEMS, HOME)])
    (gone,) = site.forwarder.sent
    assert (gone.topic, gone.partition, gone.key, gone.value) == (ITEMS, 1, key, None)
    there.fold(ITEMS, [_received(gone, 5)])  # says nothing new
    assert there.copied == 1
    flushed(again, rows)
    assert not rows.tables["originals"]


def test_edges_belong_to_their_sources_partition(site: ShardSite) -> None:
    shard = site.entity_shard(HOME, MemoryRows())
    spaced = json.dumps(["follows", ANN, "c"]).encode()
    shard.fold(RELATIONSHIPS, [_edge(0, FAR, ANN), Record(1, b"{}", spaced, NOW_MS, (), RELATIONSHIPS, HOME)])
    homes = [(each.partition, each.key) for each in site.forwarder.sent]
    assert homes == [
        (partition_for(FAR.encode(), PARTITIONS), edge_key("follows", FAR, ANN)),
        (HOME, edge_key("follows", ANN, "c")),
    ]
