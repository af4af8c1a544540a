"""The log's numbers over HTTP, and what retention holds for a group, seen from all sides."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from prometheus_client.parser import text_string_to_metric_families

from streams.embedded import EmbeddedLog, ListenError, LogSettings
from streams.embedded.inspection import inspect_log
from streams.embedded.metadata import Guard
from tests.integration.embedded_wire import WAIT_S

SETTINGS = LogSettings(housekeeping_interval_s=0.1)
SEGMENT = 4096


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    running = EmbeddedLog(
        tmp_path / "log", settings=SETTINGS, guards=(Guard("readers"),), metrics=("127.0.0.1", 0)
    )
    await running.start()
    yield running
    await running.stop()


async def scrape(log: EmbeddedLog) -> dict[tuple[str, tuple[str, ...]], float]:
    """Value by name and label values, in the order of the labels' names."""

    def get() -> str:
        url = f"http://127.0.0.1:{log.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return str(answer.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(get))
    samples = [sample for family in families for sample in family.samples]
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for sample in samples
    }


async def create(log: EmbeddedLog, name: str, config: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=log.address)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs=config)])
    await admin.close()


async def send(log: EmbeddedLog, count: int) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.address, max_batch_size=512)
    await sender.start()
    for number in range(count):
        await sender.send_and_wait("events", b"%04d" % number * 100)
    await sender.stop()


async def test_appends_syncs_requests_and_connections_are_told(log: EmbeddedLog) -> None:
    await create(log, "events", {})
    await send(log, 20)
    reader = AIOKafkaConsumer("events", bootstrap_servers=log.address, group_id="g")
    await reader.start()
    found = await scrape(log)
    assert found[("tidal_log_appended_records_total", ("events",))] == 20
    assert found[("tidal_log_appended_bytes_total", ("events",))] > 20 * 400
    assert (
        found[("tidal_log_size_bytes", ("events",))] == found[("tidal_log_appended_bytes_total", ("events",))]
    )
    # The journal's syncs count too.
    assert found[("tidal_log_fsync_seconds_count", ())] >= 20
    assert found[("tidal_log_request_seconds_count", ("Produce",))] == 20
    assert found[("tidal_log_request_seconds_bucket", ("Produce", "+Inf"))] == 20
    assert 0 < found[("tidal_log_request_seconds_sum", ("Produce",))] < 20 * WAIT_S
    assert found[("tidal_log_connections", ())] >= 1
    assert found[("tidal_log_groups", ("Stable",))] == 1
    assert found[("tidal_log_group_members", ())] == 1
    assert found[("tidal_log_disk_is_low", ())] == 0
    assert found[("tidal_log_guard_active", ("readers",))] == 1
    await reader.stop()


async def test_other_paths_and_other_talk_get_no_numbers(log: EmbeddedLog) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{log.metrics_port}/", None, WAIT_S)
    for talk in (b"x" * 100_000, b"POST /metrics HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", log.metrics_port)
        writer.write(talk)
        async with asyncio.timeout(WAIT_S):
            answer = await _all(reader)
        assert b"tidal_log" not in answer
        writer.close()
    assert await scrape(log)


async def _all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_a_taken_port_is_named(log: EmbeddedLog, tmp_path: Path) -> None:
    other = EmbeddedLog(tmp_path / "other", metrics=("127.0.0.1", log.metrics_port))
    with pytest.raises(ListenError, match=f"metrics at 127.0.0.1:{log.metrics_port}"):
        await other.start()


async def held(log: EmbeddedLog) -> float:
    return (await scrape(log)).get(("tidal_log_retention_held_bytes", ("readers", "events")), 0.0)


async def start_offset(reader: AIOKafkaConsumer) -> int:
    place = TopicPartition("events", 0)
    return int((await reader.beginning_offsets([place]))[place])


async def reaches(reader: AIOKafkaConsumer, offset: int) -> bool:
    return await start_offset(reader) >= offset


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.05)


async def test_retention_waits_for_a_guarding_group_and_goes_on_behind_it(log: EmbeddedLog) -> None:
    await create(log, "events", {"retention.bytes": "10000", "segment.bytes": str(SEGMENT)})
    reader = AIOKafkaConsumer("events", bootstrap_servers=log.address, group_id="readers")
    await reader.start()
    place = TopicPartition("events", 0)
    await reader.commit({place: 5})
    await send(log, 100)
    await until(lambda: held(log))
    assert await start_offset(reader) <= 5
    facts = inspect_log(log.data_dir)
    assert [(g.topic, g.partition, g.group, g.offset) for g in facts.guards] == [("events", 0, "readers", 5)]
    await reader.commit({place: 60})
    await until(lambda: reaches(reader, 50))
    assert await start_offset(reader) <= 60
    # Over a restart as well: neither the guard nor the offset is forgotten.
    await log.stop()
    await log.start()
    await until(lambda: held(log))
    assert 50 <= await start_offset(reader) <= 60
    # An operator's word stands above a guard.
    admin = AIOKafkaAdminClient(bootstrap_servers=log.address)
    await admin.start()
    await admin.delete_records({place: RecordsToDelete(90)})
    assert await start_offset(reader) == 90
    await admin.close()
    await reader.stop()
