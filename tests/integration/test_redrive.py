"""Dead letters sent again: which, where to, with what on them; and that the engine counts them once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer as KafkaProducer

from materializers.rows import cells
from materializers.tables.reader import TableReader
from schemas.errors import RecordError
from schemas.ids import code_of, entity_id
from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from schemas.records.dead_letter import Origin, dead_letter, letter_headers, letter_of
from schemas.settings import TopicSettings
from streams.admin import init_topics
from streams.dead_letters import count_dead_letters, dead_letter_message
from streams.partitioner import partition_for
from streams.records import LogRecord
from streams.redrive import (
    LetterPlace,
    RedriveError,
    Wanted,
    find_letters,
    read_letter,
    redrive,
)
from streams.topics import BY_ITEM, DEAD_LETTER, ITEMS, SIGNALS, all_topics
from tests.brokers import Broker
from tests.crash.log_reading import read_topics
from tests.crash.site import Site
from tests.waiting import until
from tidal.cli.main import run as tidal

PARTITIONS = 4
NOW_MS = 1_763_600_000_000
UNKNOWN = RecordError("unknown_kind", "kind", "no signal is called 'novel'")


class Letters:
    """Writes letters as the shards do."""

    def __init__(self, broker: Broker) -> None:
        init_topics(broker.bootstrap, all_topics(TopicSettings(partitions=PARTITIONS)))
        self.bootstrap = broker.bootstrap
        self.producer = KafkaProducer({"bootstrap.servers": broker.bootstrap})

    def refuse(
        self,
        topic: str,
        offset: int,
        value: bytes,
        key: bytes | None = b"ann",
        headers: tuple[tuple[str, bytes], ...] = (),
        event: int | None = None,
        code: RecordError = UNKNOWN,
    ) -> None:
        record = LogRecord(topic, 2, offset, NOW_MS, key, value, headers)
        message = dead_letter_message(dead_letter(code, record, event), key, value, PARTITIONS)
        self.producer.produce(
            message.topic, message.value, message.key, message.partition, headers=list(message.headers)
        )
        assert self.producer.flush(10) == 0


def test_a_letter_goes_back_as_it_was_and_is_noted(broker: Broker) -> None:
    letters = Letters(broker)
    letters.refuse(SIGNALS, 7, b'{"kind":"novel"}', event=3)
    letters.refuse(SIGNALS, 8, b"\x00\xff", None, code=RecordError("truncated_batch", "", "too short"))
    found = find_letters(broker.bootstrap, Wanted())
    assert [(facts.code, facts.sent_as) for facts in found] == [("unknown_kind", ""), ("truncated_batch", "")]

    rehearsed = redrive(broker.bootstrap, found, dry_run=True)
    assert len(rehearsed.sent) == 2
    assert read_topics(broker.bootstrap, [SIGNALS]) == []

    outcome = redrive(
        broker.bootstrap, find_letters(broker.bootstrap, Wanted(codes=frozenset(["unknown_kind"])))
    )
    (sent,) = read_topics(broker.bootstrap, [SIGNALS])
    assert (sent.partition, sent.key, sent.value) == (2, b"ann", b'{"kind":"novel"}')
    letter = letter_of(sent.headers.items())
    assert letter is not None
    assert letter.root == Origin(SIGNALS, 2, 7, 3)
    assert outcome.sent == [(found[0].place, outcome.sent[0][1])]
    assert outcome.sent[0][1].offset == sent.offset

    noted = find_letters(broker.bootstrap, Wanted())
    assert [facts.sent_as for facts in noted] == [f"{SIGNALS}/2/{sent.offset}", ""]
    assert count_dead_letters(broker.bootstrap).total == 2
    outcome = redrive(broker.bootstrap, noted)
    assert [place for place, _ in outcome.sent] == [noted[1].place]
    assert "sent before" in outcome.left_out[0][1]
    assert len(redrive(broker.bootstrap, noted, again=True).sent) == 2


def test_of_several_letters_of_one_event_one_is_sent(broker: Broker) -> None:
    letters = Letters(broker)
    letters.refuse(SIGNALS, 7, b"{}")
    first = find_letters(broker.bootstrap, Wanted())[0]
    assert first.letter is not None
    letters.refuse(SIGNALS, 30, b"{}", headers=tuple(letter_headers(first.letter)))
    found = find_letters(broker.bootstrap, Wanted())
    assert [facts.letter.root.offset for facts in found if facts.letter] == [7, 7]
    outcome = redrive(broker.bootstrap, found)
    assert [place for place, _ in outcome.sent] == [found[1].place]
    assert all(facts.sent_as for facts in find_letters(broker.bootstrap, Wanted()))


def test_what_must_not_be_sent_is_left_out_with_the_reason(broker: Broker) -> None:
    letters = Letters(broker)
    letters.producer.produce(ITEMS, b"{", key=b"old", partition=2)
    letters.producer.produce(ITEMS, b"{}", key=b"old", partition=2)
    letters.producer.produce(ITEMS, b"{", key=b"new", partition=2)
    letters.producer.produce(DEAD_LETTER, b"hello", partition=0)
    letters.refuse(ITEMS, 0, b"{", b"old")
    letters.refuse(ITEMS, 2, b"{", b"new")
    letters.refuse(SIGNALS, 5, b"{", headers=(("tidal-type", b"profile"),))
    letters.refuse(BY_ITEM, 6, b"x", None)
    found = find_letters(broker.bootstrap, Wanted())
    outcome = redrive(broker.bootstrap, found)
    assert [found_at.topic for _, found_at in outcome.sent] == [ITEMS]
    assert read_topics(broker.bootstrap, [ITEMS])[-1].key == b"new"
    why = sorted(reason for _, reason in outcome.left_out)
    assert [text.split(" ")[0] for text in why] == ["a", "it", "it", "it"]
    assert why[0] == "a newer record of its key is in the topic, at offset 1"


def test_places_that_do_not_exist_are_refused(broker: Broker) -> None:
    Letters(broker)
    with pytest.raises(RedriveError, match="no letter at 1/5"):
        read_letter(broker.bootstrap, LetterPlace(1, 5))
    with pytest.raises(RedriveError, match="PARTITION/OFFSET"):
        LetterPlace.parse("seventeen")


def test_the_command_lists_shows_and_sends(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    letters = Letters(broker)
    letters.refuse(SIGNALS, 7, b'{"kind":"novel"}', event=3)
    letters.refuse(SIGNALS, 9, b"\x00\xff", code=RecordError("truncated_batch", "", "too short"))

    def said(*arguments: str) -> Any:
        assert tidal(["dlq", *arguments, "--brokers", broker.bootstrap, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    listed = said("list", "--since", "1h")
    assert listed["by_reason"] == {"unknown_kind": 1, "truncated_batch": 1}
    place = next(each["letter"] for each in listed["letters"] if each["event"] == 3)
    assert said("list", "--reason", "truncated_batch")["total"] == 1
    assert said("list", "--until", "1h")["total"] == 0
    shown = said("show", place)
    assert (shown["value"], shown["first_refused"]) == ('{"kind":"novel"}', f"{SIGNALS}/2/7/3")
    assert said("redrive", place)["sent"][0]["topic"] == SIGNALS
    assert said("list", "--open")["by_reason"] == {"truncated_batch": 1}
    assert tidal(["dlq", "list", "--brokers", broker.bootstrap]) == 0
    assert tidal(["dlq", "redrive", "--brokers", broker.bootstrap]) == 2
    assert tidal(["dlq", "redrive", "3/99", "--brokers", broker.bootstrap]) == 1
    assert "no such letter" in capsys.readouterr().err


# -- through a worker -------------------------------------------------------------------------------

FIXED = "signals: {novel: {category: positive, windows: [all_time], dedup: none}}\n"


def _novel(item: str, **more: Any) -> dict[str, Any]:
    return {"kind": "novel", "item": item, "user": "ann", **more}


def _write_refused(site: Site, ts_ms: int) -> int:
    """Events of a signal that the schema lacks, in every form and once on a wrong partition; how many."""
    producer = KafkaProducer({"bootstrap.servers": site.broker.bootstrap})
    home = partition_for(b"ann", PARTITIONS)
    view = {"kind": "view", "item": "i", "user": "ann", "ts": ts_ms}
    array = [view, _novel("array", ts=ts_ms), {**view, "item": "j"}]
    columns = EventColumns(
        kinds=["view", "novel"],
        items=["i", "columns"],
        users=["ann"],
        kind=np.array([0, 1], dtype=np.uint16),
        item=np.array([0, 1], dtype=np.uint32),
        user=np.zeros(2, dtype=np.uint32),
        weight=np.full(2, 1_000_000),
        ts_ms=np.full(2, ts_ms - 5_000),
    )
    values = [
        (json.dumps(_novel("alone", ts=ts_ms)).encode(), home),
        (json.dumps(_novel("timeless")).encode(), home),
        (json.dumps(array).encode(), home),
        (encode_columnar(columns), home),
        (json.dumps(_novel("misplaced", ts=ts_ms)).encode(), (home + 1) % PARTITIONS),
    ]
    for value, partition in values:
        producer.produce(SIGNALS, value, key=b"ann", partition=partition)
    assert producer.flush(10) == 0
    return len(values)


def _novel_cells(reader: TableReader, items: list[str]) -> dict[str, tuple[int, int]]:
    """Count and newest time of the signal, by item."""
    reader.catch_up()
    keys = [
        (partition_for(item.encode(), PARTITIONS), cells.cell_key(entity_id(item), code_of("novel")))
        for item in items
    ]
    rows = zip(items, reader.get_many(cells.TABLE, keys), strict=True)
    found = {item: cells.decode_cells([row]) for item, row in rows if row is not None}
    return {item: (int(cell.count[0]), int(cell.ref_ms[0])) for item, cell in found.items()}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_redriven_events_count_once_over_retries_and_kills(site: Site, tmp_path: Path) -> None:
    items = ["alone", "timeless", "array", "columns", "misplaced"]
    ts_ms = int(time.time() * 1000) - 60_000
    site.start_worker("worker-0")
    refused = _write_refused(site, ts_ms)
    bootstrap = site.broker.bootstrap
    until(lambda: len(find_letters(bootstrap, Wanted())) == refused, lambda: site.tail("worker-0"))
    written_ms = {record.offset: record.timestamp_ms for record in read_topics(bootstrap, [SIGNALS])}
    assert len(redrive(bootstrap, find_letters(bootstrap, Wanted())).sent) == refused  # nothing is fixed yet
    until(lambda: len(find_letters(bootstrap, Wanted())) == 2 * refused, lambda: site.tail("worker-0"))
    found = find_letters(bootstrap, Wanted())
    assert len({facts.letter.root for facts in found if facts.letter}) == refused

    site.kill("worker-0")
    schema = tmp_path / "fixed.yaml"
    schema.write_text("name: fixed\n" + FIXED)
    site.use_schema(schema)
    assert len(redrive(bootstrap, found, again=True).sent) == refused
    site.start_worker("worker-0")
    reader = TableReader(site.data, "test-reader")
    until(lambda: len(_novel_cells(reader, items)) == refused, lambda: site.tail("worker-0"))
    redrive(bootstrap, found, again=True)
    site.kill("worker-0")
    redrive(bootstrap, found, again=True)
    site.start_worker("worker-0")
    end = KafkaProducer({"bootstrap.servers": bootstrap})
    for partition in range(PARTITIONS):
        end.produce(SIGNALS, json.dumps(_novel("end", ts=ts_ms)).encode(), key=b"ann", partition=partition)
    assert end.flush(10) == 0
    until(
        lambda: _novel_cells(reader, ["end"]).get("end", (0, 0))[0] == PARTITIONS,
        lambda: site.tail("worker-0"),
    )
    counted = _novel_cells(reader, items)
    assert {item: count for item, (count, _) in counted.items()} == dict.fromkeys(items, 1)
    assert counted["timeless"][1] in written_ms.values()  # its time is that of the record first refused
    site.stop("worker-0")
    reader.close()
