"""Events on partitions that are not their users' are re-routed once and only once, over kills of the worker.

The signal is `dedup: none`: nothing else would hide an event that was sent on twice.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer

from materializers.rows import cells
from materializers.tables.reader import TableReader
from schemas.ids import code_of, entity_id
from streams.partitioner import partition_for
from streams.positions import Position, Positions
from streams.topics import SIGNALS
from tests.crash.site import Site

PARTITIONS = 4
USERS = [f"u{number}" for number in range(23)]
ITEMS = [f"i{number}" for number in range(7)]
ROUNDS = 5
EVENTS_A_ROUND = 600
WAIT_S = 60.0
WORKER = "worker-0"
SCHEMA = "name: taps\nsignals: {tap: {category: positive, windows: [all_time], dedup: none}}\n"


@pytest.fixture
def site(site: Site, tmp_path: Path) -> Site:
    schema = tmp_path / "schema.yaml"
    schema.write_text(SCHEMA)
    site.use_schema(schema)
    return site


def _publish(producer: Producer, number: int, ts_ms: int) -> bool:
    """One event, on a partition that goes round, alone or in an array; whether it is misplaced."""
    user, partition = USERS[number % len(USERS)], number % PARTITIONS
    event = {"kind": "tap", "user": user, "item": ITEMS[number % len(ITEMS)], "ts": ts_ms}
    value = json.dumps([event] if number % 3 else event).encode()
    producer.produce(SIGNALS, value, key=user.encode(), partition=partition)
    return partition != partition_for(user.encode(), PARTITIONS)


def _counts(reader: TableReader) -> dict[str, int]:
    reader.catch_up()
    keys = [
        (partition_for(item.encode(), PARTITIONS), cells.cell_key(entity_id(item), code_of("tap")))
        for item in ITEMS
    ]
    rows = zip(ITEMS, reader.get_many(cells.TABLE, keys), strict=True)
    return {item: int(cells.decode_cells([row]).count[0]) for item, row in rows if row is not None}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_misplaced_events_count_once_over_kills(site: Site) -> None:
    ts_ms = int(time.time() * 1000) - 60_000
    producer = Producer({"bootstrap.servers": site.broker.bootstrap, "linger.ms": 2})
    reader = TableReader(site.data, "test-reader")
    expected = dict.fromkeys(ITEMS, 0)
    misplaced = 0
    site.start_worker(WORKER)
    site.wait_until_owned(PARTITIONS)
    for turn in range(ROUNDS):
        for number in range(turn * EVENTS_A_ROUND, (turn + 1) * EVENTS_A_ROUND):
            misplaced += _publish(producer, number, ts_ms)
            expected[ITEMS[number % len(ITEMS)]] += 1
        producer.flush()
        # Killed at another moment of its work each time: before a flush, after it, after a checkpoint.
        time.sleep(0.03 * 3**turn)
        site.kill(WORKER)
        if turn == ROUNDS - 2:
            site.wipe(WORKER)
        site.start_worker(WORKER)
    deadline_s = time.monotonic() + WAIT_S
    while _counts(reader) != expected:
        assert time.monotonic() < deadline_s, (_counts(reader), expected, site.tail(WORKER))
        time.sleep(0.2)
    site.stop(WORKER)  # what was sent on twice would show by now
    assert _counts(reader) == expected
    assert misplaced > ROUNDS * EVENTS_A_ROUND // 2
    reader.close()


def _publish_misplaced(producer: Producer, user: str) -> Position:
    """One event for the first item, on a partition that is not the user's; where it stands."""
    stands: list[Position] = []

    def acknowledged(error: object, message: Message) -> None:
        assert error is None
        stands.append(Position(SIGNALS, message.partition(), message.offset()))

    partition = (partition_for(user.encode(), PARTITIONS) + 1) % PARTITIONS
    event = {"kind": "tap", "user": user, "item": ITEMS[0], "ts": int(time.time() * 1000)}
    producer.produce(SIGNALS, json.dumps(event).encode(), partition=partition, on_delivery=acknowledged)
    producer.flush()
    return stands[0]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_misplaced_event_is_counted_in_a_read_after_its_position(site: Site) -> None:
    """The position is that of the place where the producer put it, which is not where it is counted."""
    producer = Producer({"bootstrap.servers": site.broker.bootstrap, "linger.ms": 0})
    site.start_worker(WORKER)
    site.start_queryd()
    site.wait_until_owned(PARTITIONS)
    site.wait_until_queryd_serves()
    for number in range(1, 41):
        after = Positions.of([_publish_misplaced(producer, USERS[number % len(USERS)])]).encode()
        ledger = site.get(f"/v1/items/{ITEMS[0]}/signals?signal=tap&after={after}")
        assert ledger["all_time"]["count"] == number
