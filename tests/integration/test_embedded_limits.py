"""What a connection may ask of the log: size, number, memory, time; each limit ends in a clear way."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.embedded import EmbeddedLog, LogSettings
from tests.integration.embedded_wire import WAIT_S, Wire, api_versions, request, string
from tests.unit.embedded.support import make_batch


@asynccontextmanager
async def running(folder: Path, **settings: object) -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(folder / "log", settings=LogSettings(**settings))  # type: ignore[arg-type]
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def create(log: EmbeddedLog, name: str, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=log.address)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)


def closed(log: EmbeddedLog, why: str) -> int:
    assert log._broker is not None
    return log._broker.measures.closed[why]


def produce(value: bytes, correlation_id: int = 1, topic: str = "t") -> bytes:
    records = bytes(make_batch([(b"k", value)]))
    body = struct.pack(">hhii", -1, -1, 1_000, 1) + string(topic) + struct.pack(">iii", 1, 0, len(records))
    return request(0, 7, correlation_id, body + records)


def fetch(bytes_max: int, correlation_id: int = 1, topic: str = "t") -> bytes:
    body = struct.pack(">iiiib", -1, 0, 1, bytes_max, 0) + struct.pack(">i", 1) + string(topic)
    return request(1, 4, correlation_id, body + struct.pack(">iiqi", 1, 0, 0, bytes_max))


async def test_a_request_above_the_limit_is_refused_by_its_length(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, request_bytes_max=10_000) as log:
        wire = await Wire.open(log)
        with caplog.at_level(logging.WARNING):
            wire.send(struct.pack(">i", 10_001))
            assert await wire.closed() == b""
        assert "a request of 10001 bytes, the limit is 10000" in caplog.text
        assert closed(log, "too_large") == 1
        assert await (await Wire.open(log)).is_alive()


async def test_only_records_may_be_large(tmp_path: Path) -> None:
    async with running(tmp_path, control_bytes_max=70_000) as log:
        await create(log, "t")
        wire = await Wire.open(log)
        wire.send(produce(bytes(100_000)))
        assert (await wire.answer())[0] == 1
        names = struct.pack(">i", 20_000) + 20_000 * string("xx")
        wire.send(request(3, 1, 2, names))
        assert await wire.closed() == b""
        assert closed(log, "too_large") == 1
        several = await Wire.open(log)
        several.send(request(1, 4, 3, struct.pack(">iiiib", -1, 0, 1, 100, 0) + struct.pack(">i", 2**31 - 1)))
        assert await several.closed() == b""


async def test_more_connections_than_allowed_are_closed_and_room_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, connections_max=3) as log:
        wires = [await Wire.open(log) for _ in range(3)]
        assert all([await wire.is_alive() for wire in wires])
        with caplog.at_level(logging.WARNING):
            assert await (await Wire.open(log)).closed() == b""
        assert "connections_max is 3" in caplog.text
        wires.pop().close()
        await until(lambda: len(log._server.connections) == 2)  # type: ignore[union-attr]
        assert await (await Wire.open(log)).is_alive()
        assert all([await wire.is_alive() for wire in wires])


async def test_what_waits_for_memory_is_not_read_and_comes_later(tmp_path: Path) -> None:
    size = 1 << 20
    async with running(tmp_path, received_bytes_max=size + 1_000) as log:
        await create(log, "t")
        assert log._broker is not None
        holder, waiting = await Wire.open(log), await Wire.open(log)
        whole = produce(bytes(size))
        holder.send(whole[:-1])
        await until(lambda: log._broker.received.used > size)  # type: ignore[union-attr]
        waiting.send(whole)
        await asyncio.sleep(0.1)
        # Neither is the memory taken twice, nor are others held up.
        assert log._broker.received.used < size + 1_000
        assert await (await Wire.open(log)).is_alive()
        holder.send(whole[-1:])
        assert (await holder.answer())[0] == 1
        assert (await waiting.answer())[0] == 1
        assert log._broker.received.used == 0


async def test_many_large_requests_at_once_all_come_through(tmp_path: Path) -> None:
    async with running(tmp_path, received_bytes_max=600_000, unsynced_bytes_max=400_000) as log:
        await create(log, "t")
        wires = [await Wire.open(log) for _ in range(20)]
        for wire in wires:
            for number in range(3):
                wire.send(produce(bytes(250_000), number))
        for wire in wires:
            assert [(await wire.answer())[0] for _ in range(3)] == [0, 1, 2]
        assert log._broker is not None
        assert log._broker.received.used == 0


async def test_readers_that_take_no_answers_stop_further_fetches_only(tmp_path: Path) -> None:
    size = 4 << 20
    async with running(tmp_path, unsent_bytes_max=1_000, stall_timeout_s=1.0) as log:
        await create(log, "t")
        first = await Wire.open(log)
        first.send(produce(bytes(size)))
        await first.answer()
        assert log._broker is not None
        unsent = log._broker.unsent
        stuck = [await Wire.open(log) for _ in range(4)]
        for wire in stuck:
            # More than the sockets' own buffers hold, and nobody reads.
            wire._reader._transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(4):
                wire.send(fetch(size))
        await until(lambda: not unsent.room)
        # What they have not taken is not read either.
        assert unsent.used < size
        assert await first.is_alive()
        # Whoever takes nothing for the stall time is closed, then the others have their turn.
        first.send(fetch(size, 5))
        correlation_id, body = await first.answer()
        assert (correlation_id, len(body) > size) == (5, True)
        await until(lambda: closed(log, "stalled") == 4 and unsent.used == 0)


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_answer_that_has_begun_is_completed(tmp_path: Path, deleted: bool) -> None:
    size = 4 << 20
    async with running(tmp_path, open_segments_max=1) as log:
        await create(log, "t")
        wire = await Wire.open(log)
        value = bytes(range(256)) * (size // 256)
        wire.send(produce(value))
        await wire.answer()
        wire._reader._transport.pause_reading()  # type: ignore[attr-defined]
        # More than the sockets' own buffers hold.
        for number in range(8):
            wire.send(fetch(2 * size, number))
        assert log._broker is not None
        await until(lambda: log._broker.unsent.used > 0)  # type: ignore[union-attr]
        if deleted:
            admin = AIOKafkaAdminClient(bootstrap_servers=log.address)
            await admin.start()
            await admin.delete_topics(["t"])
            await admin.close()
        wire._reader._transport.resume_reading()  # type: ignore[attr-defined]
        answers = [(await wire.answer())[1] for _ in range(8)]
        # Those that had not begun say that the topic is gone.
        assert (len(answers[-1]) < 100) == deleted
        assert value in answers[0]
        assert all(value in answer for answer in answers if len(answer) >= 100)


async def test_idle_and_stalled_connections_are_closed(tmp_path: Path) -> None:
    async with running(tmp_path, idle_timeout_s=1.5, stall_timeout_s=0.2) as log:
        idle, stalled, busy = [await Wire.open(log) for _ in range(3)]
        assert await idle.is_alive()
        stalled.send(api_versions()[:6])
        # A long poll is no idleness.
        await create(log, "t")
        waiting = request(
            1, 4, 3,
            struct.pack(">iiiib", -1, 3_000, 1, 1_000, 0) + struct.pack(">i", 1) + string("t")
            + struct.pack(">iiqi", 1, 0, 0, 1_000),
        )  # fmt: skip
        busy.send(waiting)
        assert await stalled.closed() == b""
        assert await idle.closed() == b""
        assert (closed(log, "stalled"), closed(log, "idle")) == (1, 1)
        assert (await busy.answer())[0] == 3


async def test_a_client_whose_idle_connection_was_closed_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, idle_timeout_s=0.3) as log:
        await create(log, "t")
        sender = AIOKafkaProducer(bootstrap_servers=log.address)
        await sender.start()
        await sender.send_and_wait("t", b"1")
        await until(lambda: closed(log, "idle") > 1)
        await sender.send_and_wait("t", b"2")
        await sender.stop()
        reader = AIOKafkaConsumer("t", bootstrap_servers=log.address, auto_offset_reset="earliest")
        await reader.start()
        assert [(await reader.getone()).value for _ in range(2)] == [b"1", b"2"]
        await reader.stop()


async def test_a_bomb_costs_its_reader_an_error_and_the_log_no_memory(tmp_path: Path) -> None:
    async with running(tmp_path) as log:
        await create(log, "t")
        records = bytes(make_batch([(b"k", bytes(80 << 20))], codec=4, timestamp=1_000))
        assert len(records) < 100_000
        wire = await Wire.open(log)
        body = struct.pack(">hhii", -1, -1, 1_000, 1) + string("t") + struct.pack(">iii", 1, 0, len(records))
        wire.send(request(0, 7, 1, body + records))
        await wire.answer()
        # By time the log has to look into the batch.
        wire.send(
            request(2, 1, 2, struct.pack(">ii", -1, 1) + string("t") + struct.pack(">iiq", 1, 0, 1_000))
        )
        _, answer = await wire.answer()
        assert struct.unpack_from(">ih", answer, 4 + 3 + 4) == (0, 2)
