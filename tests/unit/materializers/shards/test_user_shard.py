"""From records of tidal.signals to the batch that views fold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from materializers.materializer import Scope
from materializers.shards.card_positions import CARD_POSITIONS_TABLE, CardPositions, decode_card_positions
from materializers.shards.parking import PARKED_TABLE
from materializers.shards.user_shard import UserShard
from schemas.default import default_schema
from schemas.durations import LONGEST_WINDOW_MS
from schemas.records.dead_letter import letter_from_headers
from schemas.records.profile_record import ProfileRecord, encode_profile_record
from schemas.records.rekeyed import decode_rekeyed
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.shard_harness import NOW_MS, PARTITIONS, Record, ShardSite, flushed

SIGNALS = "tidal.signals"
HOME = 1
NAMES = [f"u{number}" for number in range(60)]
USERS = [name for name in NAMES if partition_for(name.encode(), PARTITIONS) == HOME]
STRANGER = next(name for name in NAMES if partition_for(name.encode(), PARTITIONS) == 2)


@pytest.fixture
def site(tmp_path: Path) -> ShardSite:
    return ShardSite(tmp_path, default_schema())


def _event(user: str, item: str = "i1", kind: str = "like", **more: Any) -> bytes:
    return json.dumps({"kind": kind, "user": user, "item": item, "ts": NOW_MS, **more}).encode()


def _profile(user: str, locale: str, source_offset: int) -> dict[str, Any]:
    record = ProfileRecord(user, {"locale": locale}, (0, source_offset))
    return {"value": encode_profile_record(record), "headers": (("tidal-type", b"profile"),)}


def _fold(shard: UserShard, records: list[Record]) -> int:
    """A fold whose events the views have seen."""
    events = shard.fold(SIGNALS, records)
    shard.settle()
    return events


def _view(site: ShardSite) -> Any:
    return site.views[Scope.USER][-1]


def test_records_at_or_below_the_applied_offset_are_skipped(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    assert _fold(shard, [Record(5, _event(USERS[0])), Record(6, _event(USERS[1]))]) == 2
    assert _fold(shard, [Record(5, _event(USERS[0], "i2")), Record(6, _event(USERS[1], "i2"))]) == 0
    assert shard.applied(SIGNALS) == 6


def test_profiles_move_in_log_order_and_stamp_what_comes_after(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    first, second = USERS[:2]
    records = [
        Record(0, _event(first, "a")),
        Record(1, **_profile(first, "US", 10)),
        Record(2, _event(first, "b")),
        Record(3, _event(second, "b")),
        Record(4, **_profile(first, "DE", 11)),
        Record(5, **_profile(first, "FR", 10)),  # sent again after a crash: not newer
        Record(6, _event(first, "c")),
    ]
    _fold(shard, records)
    stamped = site.profiles.strings(_view(site).batches[0].profile)
    assert stamped == ["{}", '{"locale":"US"}', "{}", '{"locale":"DE"}']


def test_profiles_survive_a_restart_in_another_process(site: ShardSite, tmp_path: Path) -> None:
    rows = MemoryRows()
    shard = site.user_shard(HOME, rows)
    _fold(shard, [Record(0, **_profile(USERS[0], "US", 10)), Record(1, _event(USERS[0]))])
    meta = flushed(shard, rows)
    other = ShardSite(tmp_path / "other", site.schema)
    again = other.user_shard(HOME, rows, meta)
    _fold(again, [Record(1, _event(USERS[0])), Record(2, _event(USERS[0], "b"))])
    batch = _view(other).batches[0]
    assert batch.offset.tolist() == [2]
    assert other.profiles.strings(batch.profile) == ['{"locale":"US"}']


def test_duplicates_are_dropped_over_a_restart(site: ShardSite, tmp_path: Path) -> None:
    rows = MemoryRows()
    shard = site.user_shard(HOME, rows)
    assert _fold(shard, [Record(0, _event(USERS[0])), Record(1, _event(USERS[0]))]) == 1
    meta = flushed(shard, rows)
    again = ShardSite(tmp_path / "other", site.schema).user_shard(HOME, rows, meta)
    assert _fold(again, [Record(2, _event(USERS[0])), Record(3, _event(USERS[0], "b"))]) == 1


def test_misplaced_events_are_sent_home_and_counted_there_once(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    assert _fold(shard, [Record(0, _event(STRANGER)), Record(1, _event(USERS[0]))]) == 1
    sent = [each for each in site.forwarder.sent if each.topic == SIGNALS]
    assert [(each.partition, each.type) for each in sent] == [(2, b"rerouted")]
    rerouted = {"value": sent[0].value, "headers": (("tidal-type", b"rerouted"),)}
    home = site.user_shard(2, MemoryRows())
    assert _fold(home, [Record(8, **rerouted), Record(9, **rerouted)]) == 1
    batch = _view(site).batches[0]
    assert site.users.strings(batch.user) == [STRANGER]
    assert batch.offset.tolist() == [8]
    assert batch.record_ts_ms.tolist() == [NOW_MS]


def test_every_destination_hears_how_far_a_partition_is_forwarded(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    _fold(shard, [Record(0, b"no event"), Record(1, _event(USERS[0]))])
    site.forwarder.send()
    by_item = {each.partition: decode_rekeyed(each.value) for each in site.forwarder.sent}
    assert sorted(by_item) == list(range(PARTITIONS))
    assert all(columns.through == {HOME: 1} for columns in by_item.values())
    assert sum(map(len, by_item.values())) == 1


def test_refused_records_become_letters_with_place_and_reason(site: ShardSite) -> None:
    rows = MemoryRows()
    shard = site.user_shard(HOME, rows)
    _fold(shard, [Record(3, b"{", key=b"k", partition=HOME), Record(4, _event(USERS[0], kind="nope"))])
    letters = shard.take_letters()
    told = letter_from_headers(letters[0].headers)
    assert (told.topic, told.partition, told.offset, told.code) == (SIGNALS, HOME, 3, "malformed_json")
    assert (letters[0].key, letters[0].value) == (b"k", b"{")
    assert letter_from_headers(letters[1].headers).code == "unknown_kind"
    assert shard.reject_counts == {"malformed_json": 1, "unknown_kind": 1}
    meta = flushed(shard, rows)
    assert site.user_shard(HOME, rows, meta).reject_counts == {"malformed_json": 1, "unknown_kind": 1}
    assert shard.take_letters() == []


def test_late_events_count_and_are_told_and_those_of_the_future_become_letters(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    skew_ms, longest_ms = default_schema().limits.future_skew_ms, LONGEST_WINDOW_MS
    times = {"soon": skew_ms, "too soon": skew_ms + 1, "old": -longest_ms, "late": -longest_ms - 1}
    records = [
        Record(offset, _event(USERS[0], item, ts=NOW_MS + apart_ms))
        for offset, (item, apart_ms) in enumerate(times.items())
    ]
    assert _fold(shard, records) == 3
    assert (shard.counters.events, shard.counters.late) == (3, 1)
    assert [letter_from_headers(letter.headers).code for letter in shard.take_letters()] == [
        "timestamp_in_future"
    ]


def test_a_letter_that_was_sent_again_keeps_when_it_was_first_refused(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    _fold(shard, [Record(3, b"{", timestamp=1_000)])
    headers = tuple((name, bytes(value)) for name, value in shard.take_letters()[0].headers)
    _fold(shard, [Record(4, b"{", timestamp=9_000, headers=headers)])
    assert letter_from_headers(shard.take_letters()[0].headers).first_seen_ms == 1_000


def test_events_wait_for_their_items_record_and_are_applied_first(site: ShardSite, tmp_path: Path) -> None:
    rows = MemoryRows()
    shard = site.user_shard(HOME, rows)
    site.give_card("known")
    _fold(shard, [Record(0, _event(USERS[0], "late")), Record(1, _event(USERS[0], "known"))])
    assert [batch.carded.offset.tolist() for batch in _view(site).batches] == [[1]]
    meta = flushed(shard, rows)
    assert len(rows.tables[PARKED_TABLE.name]) == 1

    other = ShardSite(tmp_path / "other", site.schema)
    other.give_card("known")
    again = other.user_shard(HOME, rows, meta)
    assert again.parked == 1
    other.give_card("late", offset=1)
    _fold(again, [Record(2, _event(USERS[1], "late"))])
    batch = _view(other).batches[0]
    assert batch.carded.offset.tolist() == [0, 2]
    assert batch.offset.tolist() == [2]
    assert other.creators.strings(batch.carded.creator) == ["c", "c"]
    flushed(again, rows)
    assert rows.tables[PARKED_TABLE.name] == {}
    history = [decode_card_positions(row) for row in rows.tables[CARD_POSITIONS_TABLE.name].values()]
    assert history == [CardPositions(-1, {0: 1}), CardPositions(1, {0: 2})]


def test_cards_that_come_while_nothing_else_does_wake_the_shard(site: ShardSite) -> None:
    shard = site.user_shard(HOME, MemoryRows())
    _fold(shard, [Record(0, _event(USERS[0], "late"))])
    assert shard.wake() == 0
    site.give_card("late")
    assert shard.wake() == 1
    assert _view(site).batches[-1].carded.offset.tolist() == [0]
    assert shard.wake() == 0


def test_a_user_whose_entity_id_is_taken_on_disk_is_refused(
    site: ShardSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = MemoryRows()
    shard = site.user_shard(HOME, rows)
    _fold(shard, [Record(0, _event(USERS[0]))])
    meta = flushed(shard, rows)
    monkeypatch.setattr("materializers.interner.entity_id", lambda _: shard_id)
    shard_id = int(site.users.entity_ids[site.users.find(USERS[0])])
    other = ShardSite(tmp_path / "other", site.schema)
    again = other.user_shard(HOME, rows, meta)
    monkeypatch.undo()
    monkeypatch.setattr(
        "materializers.interner.entity_id", lambda name: shard_id if name == USERS[1] else hash(name) & 0xFFFF
    )
    assert _fold(again, [Record(1, _event(USERS[1], "b"))]) == 0
    assert again.reject_counts == {"id_collision": 1}
