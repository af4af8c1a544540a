"""Which records of ``tidal.items`` the cards take in."""

from __future__ import annotations

import msgspec

from materializers.shards.item_records import CopyMarks, ItemRecord, read_item_record
from materializers.shards.rekeying import Original
from schemas.default import default_schema
from schemas.records.profile_record import MOVED_TYPE, REROUTED_TYPE, SOURCE_HEADER, TYPE_HEADER
from streams.partitioner import partition_for
from streams.records import LogRecord

PARTITIONS = 4
SCHEMA = default_schema()
HOME = partition_for(b"a", PARTITIONS)
ELSEWHERE = (HOME + 1) % PARTITIONS


def _record(
    partition: int, key: bytes = b"a", *headers: tuple[str, bytes], value: bytes | None = b'{"creator": "c"}'
) -> LogRecord:
    return LogRecord("tidal.items", partition, 5, 1, key, value, headers)


def _read(record: LogRecord) -> ItemRecord | None:
    return read_item_record(record.partition, PARTITIONS, record, SCHEMA)


def _copy(offset: int) -> ItemRecord | None:
    original = Original("tidal.items", ELSEWHERE, offset, b"a")
    source = (SOURCE_HEADER, msgspec.msgpack.encode(original))
    return _read(_record(HOME, b"a", (TYPE_HEADER, REROUTED_TYPE), source))


def test_only_what_stands_at_home_under_the_plain_key_counts() -> None:
    found = _read(_record(HOME))
    assert found is not None
    assert found.write.id == "a"
    assert found.original is None
    deleted = _read(_record(HOME, value=None))
    assert deleted is not None
    assert deleted.write.record is None
    assert _read(_record(ELSEWHERE)) is None
    assert _read(_record(HOME, b'{"id": "a"}')) is None
    assert _read(_record(HOME, value=b"{")) is None


def test_a_delete_that_takes_an_original_out_of_the_log_says_nothing() -> None:
    assert _read(_record(HOME, b"a", (TYPE_HEADER, MOVED_TYPE), value=None)) is None


def test_a_copy_that_is_sent_again_counts_once() -> None:
    kept: dict[str, int] = {}
    marks = CopyMarks(kept)
    first, second = _copy(1), _copy(2)
    assert first is not None
    assert second is not None
    assert [marks.is_news(HOME, each) for each in (first, second, first, second)] == [
        True,
        True,
        False,
        False,
    ]
    assert not CopyMarks(kept).is_news(HOME, second), "the marks survive with the cards"
