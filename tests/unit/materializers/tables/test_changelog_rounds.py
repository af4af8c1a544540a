"""A checkpoint goes to the log in rounds of which each fits one request."""

from __future__ import annotations

from threading import Event
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from materializers.materializer import Scope
from materializers.tables import changelog
from materializers.tables.changelog import ChangelogTopics, ChangelogWriter, Checkpoint, changelog_key
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY, Ownership

_TOPICS = ChangelogTopics(
    application="app",
    brokers="nowhere:1",
    by_scope={Scope.USER: "user-log", Scope.ITEM: "item-log"},
    tables={"users": Scope.USER, "items": Scope.ITEM},
    dead_letters="letters",
)
_Row = tuple[str, bytes, bytes | None]


class _Producer:
    """Notes the rows handed over between two waits for the log; ``full`` refuses every other row once."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.rounds: list[list[_Row]] = [[]]
        self.committed = False
        self.full = False

    def begin_transaction(self) -> None:
        self.committed = False
        self.rounds = [[]]

    def produce_batch(self, topic: str, rows: list[dict[str, Any]], partition: int) -> int:
        taken = rows
        if self.full:
            self.full = False
            taken = rows[::2]
            for row in rows[1::2]:
                row["_error"] = KafkaError(KafkaError._QUEUE_FULL)
        self.rounds[-1].extend((topic, row["key"], row["value"]) for row in taken)
        return len(taken)

    def poll(self, seconds: float) -> None:
        """The queue has room again."""

    def flush(self, seconds: float) -> int:
        self.rounds.append([])
        return 0

    def commit_transaction(self, seconds: float) -> None:
        self.committed = True


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> ChangelogWriter:
    monkeypatch.setattr(changelog, "Producer", _Producer)
    return ChangelogWriter(_TOPICS, 3, Event())


def _committed(writer: ChangelogWriter, rows: dict[str, dict[bytes, bytes | None]]) -> _Producer:
    writer.commit(Checkpoint(partition=3, rows=rows, letters=(), ownership=Ownership(lineage="x")))
    producer = cast(_Producer, writer._producer)
    assert producer.committed
    sent = [row for each in producer.rounds for row in each]
    topics = {"users": "user-log", "items": "item-log"}
    expected = [
        (topics[table], changelog_key(table, key), value)
        for table, changed in rows.items()
        for key, value in changed.items()
    ]
    assert sorted(sent[:-1], key=lambda row: row[:2]) == sorted(expected, key=lambda row: row[:2])
    assert sent[-1][:2] == ("user-log", changelog_key(META_TABLE, OWNERSHIP_KEY))
    return producer


def _bytes(rows: list[_Row]) -> int:
    return sum(len(key) + len(value or b"") for _, key, value in rows)


def test_a_small_checkpoint_is_one_round(writer: ChangelogWriter) -> None:
    producer = _committed(writer, {"users": {b"a": b"1", b"b": None}, "items": {b"c": b"2"}})
    assert len(producer.rounds) == 1
    assert len(_committed(writer, {"users": {b"a": b"2"}}).rounds) == 1


@pytest.mark.parametrize(("count", "size"), [(100_000, 8), (40_000, 400), (6_000, 3_100)])
def test_a_round_fits_a_request(writer: ChangelogWriter, count: int, size: int) -> None:
    rows: dict[bytes, bytes | None] = {number.to_bytes(8, "big"): bytes(size) for number in range(count)}
    producer = _committed(writer, {"users": dict(rows), "items": {b"c": b"2"}})
    assert len(producer.rounds) > 1
    assert max(map(len, producer.rounds)) <= producer.options["batch.num.messages"]
    assert max(map(_bytes, producer.rounds)) <= producer.options["batch.size"]


def test_rows_that_find_the_queue_full_are_handed_over_again(writer: ChangelogWriter) -> None:
    cast(_Producer, writer._producer).full = True
    _committed(writer, {"users": {number.to_bytes(2, "big"): b"1" for number in range(9)}})
