"""What the running log does by itself: compaction in its child process, retention, and its refusals."""

from __future__ import annotations

import asyncio
import errno
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.embedded import EmbeddedLog, ListenError, LogFolderError, LogSettings, segment
from streams.embedded.batch import Buffer
from streams.embedded.inspection import verify_log

SETTINGS = LogSettings(housekeeping_interval_s=0.2)
WAIT_S = 20.0


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    running = EmbeddedLog(tmp_path / "log", settings=SETTINGS)
    await running.start()
    yield running
    await running.stop()


async def create(log: EmbeddedLog, name: str, config: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=log.address)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs=config)])
    await admin.close()


async def send(log: EmbeddedLog, topic: str, records: list[tuple[bytes, bytes | None]]) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.address, enable_idempotence=True, max_batch_size=512)
    await sender.start()
    for future in [await sender.send(topic, key=key, value=value) for key, value in records]:
        await future
    await sender.stop()


async def read(log: EmbeddedLog, topic: str) -> list[tuple[int, bytes, bytes | None]]:
    reader = AIOKafkaConsumer(topic, bootstrap_servers=log.address, auto_offset_reset="earliest")
    await reader.start()
    (partition,) = reader.assignment()
    end = (await reader.end_offsets([partition]))[partition]
    found = []
    while await reader.position(partition) < end:
        for messages in (await reader.getmany(timeout_ms=100)).values():
            found += [(message.offset, message.key, message.value) for message in messages]
    await reader.stop()
    return found


def segments(log: EmbeddedLog, topic: str) -> int:
    return len(list((log.data_dir / "topics").glob(f"{topic}@*/0/*.log")))


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_compacted_topic_shrinks_and_keeps_the_last_of_each_key(log: EmbeddedLog) -> None:
    await create(
        log, "rows", {"cleanup.policy": "compact", "segment.bytes": "4096", "delete.retention.ms": "0"}
    )
    records: list[tuple[bytes, bytes | None]] = [(b"%d" % (i % 10), b"%04d" % i * 20) for i in range(400)]
    records.append((b"3", None))
    await send(log, "rows", records)
    before = segments(log, "rows")
    await until(lambda: segments(log, "rows") < before / 2)
    found = await read(log, "rows")
    assert len(found) < 120
    table = {key: value for _, key, value in found}
    assert {key: value for key, value in table.items() if value is not None} == {
        key: value for key, value in dict(records).items() if value is not None
    }
    offsets = [offset for offset, _, _ in found]
    assert offsets == sorted(offsets)
    assert all(records[offset] == (key, value) for offset, key, value in found)
    await log.stop()
    await log.start()
    assert await read(log, "rows") == found


async def test_a_bounded_lag_takes_deleted_values_and_their_deletes_out_of_a_quiet_topic(
    log: EmbeddedLog,
) -> None:
    """However little there is to gain: somebody may have to be forgotten."""
    config = {
        "cleanup.policy": "compact",
        "max.compaction.lag.ms": "400",
        "delete.retention.ms": "300",
        "min.cleanable.dirty.ratio": "1",
    }
    await create(log, "people", config)
    await send(log, "people", [(b"keep-%d" % number, b"x" * 200) for number in range(20)])
    await send(log, "people", [(b"ada", b"lovelace")])
    await send(log, "people", [(b"ada", None)])
    await until(lambda: segments(log, "people") > 1)
    await send(log, "people", [(b"keep-0", b"y")])  # the last batch of a log is never compacted

    def traces() -> bytes:
        files = (log.data_dir / "topics").glob("people@*/0/*.log")
        return b"".join(path.read_bytes() for path in files)

    await until(lambda: b"lovelace" not in traces())
    await until(lambda: b"ada" not in traces())
    assert {key for _, key, _ in await read(log, "people")} == {b"keep-%d" % number for number in range(20)}


async def test_retention_by_size_moves_the_start(log: EmbeddedLog) -> None:
    await create(log, "events", {"retention.bytes": "10000", "segment.bytes": "4096"})
    await send(log, "events", [(b"k", b"%04d" % i * 20) for i in range(400)])
    await until(lambda: segments(log, "events") <= 4)
    found = await read(log, "events")
    assert found[0][0] > 0
    assert found[-1][0] == 399
    assert [offset for offset, _, _ in found] == list(range(found[0][0], 400))


async def test_two_logs_in_one_folder_are_refused(log: EmbeddedLog) -> None:
    with pytest.raises(LogFolderError, match="in use by another log"):
        await EmbeddedLog(log.data_dir).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com"])
async def test_only_loopback_is_listened_on(tmp_path: Path, host: str) -> None:
    with pytest.raises(ListenError, match=r"loopback only.*log\.users_file"):
        await EmbeddedLog(tmp_path, host).start()


async def test_a_full_disk_refuses_batches_and_recovers(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(log, "events", {})
    usage = shutil.disk_usage(log.data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        sender = AIOKafkaProducer(bootstrap_servers=log.address, retry_backoff_ms=50)
        await sender.start()
        await asyncio.sleep(0.7)
        waiting = await sender.send("events", b"v")
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
    await asyncio.wait_for(waiting, WAIT_S)
    await sender.stop()
    assert [value for _, _, value in await read(log, "events")] == [b"v"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fills_up_under_a_write_is_waited_for(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    await create(log, "events", {})
    await send(log, "events", [(b"k", b"before")])
    real = segment.write_fully

    def half(fd: int, buffers: list[Buffer]) -> None:
        whole = b"".join(buffers)
        real(fd, [whole[: len(whole) // 2]])
        raise OSError(error, "no room")

    sender = AIOKafkaProducer(bootstrap_servers=log.address, enable_idempotence=True)
    await sender.start()
    with monkeypatch.context() as patch:
        patch.setattr(segment, "write_fully", half)
        waiting = [await sender.send("events", b"%d" % number, partition=0) for number in range(50)]
        assert log._commit is not None
        await until(lambda: log._commit.is_out_of_space)  # type: ignore[union-attr]
        assert not any(future.done() for future in waiting)
        # Readers have what is on the disk, administration that changes nothing goes on.
        assert [value for _, _, value in await read(log, "events")] == [b"before"]
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)
    await sender.stop()
    assert not log._commit.is_out_of_space
    expected = [b"before", *(b"%d" % number for number in range(50))]
    assert [value for _, _, value in await read(log, "events")] == expected
    await log.stop()
    assert verify_log(log.data_dir).findings == []
    await log.start()
    assert [value for _, _, value in await read(log, "events")] == expected


async def test_quiet_records_expire(log: EmbeddedLog) -> None:
    await create(log, "events", {"retention.ms": "300"})
    await send(log, "events", [(b"k", b"v")])
    reader = AIOKafkaConsumer("events", bootstrap_servers=log.address)
    await reader.start()
    (partition,) = reader.assignment()
    deadline = time.monotonic() + WAIT_S
    while (await reader.beginning_offsets([partition]))[partition] == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert (await reader.end_offsets([partition]))[partition] == 1
    await reader.stop()


async def test_a_stopped_log_starts_again_on_its_port(log: EmbeddedLog) -> None:
    address = log.address
    await log.stop()
    await log.stop()
    await log.start()
    assert log.address == address


async def answer_to(log: EmbeddedLog, payload: bytes) -> bytes:
    """What comes back until the log closes the connection or is silent; never waits long."""
    reader, writer = await asyncio.open_connection(*log.address.split(":"))
    writer.write(payload)
    if writer.can_write_eof():
        writer.write_eof()
    try:
        async with asyncio.timeout(WAIT_S):
            return await reader.read(1 << 20)
    finally:
        writer.close()


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


async def test_an_unknown_version_of_api_versions_gets_the_oldest_answer(log: EmbeddedLog) -> None:
    answer = await answer_to(log, framed(struct.pack(">hhih", 18, 99, 7, -1)))
    size, correlation_id, error = struct.unpack_from(">iih", answer)
    assert (size, correlation_id, error) == (len(answer) - 4, 7, 35)


@pytest.mark.parametrize("size", [-1, 0, 1 << 30])
async def test_an_impossible_length_closes_the_connection(log: EmbeddedLog, size: int) -> None:
    assert await answer_to(log, struct.pack(">i", size) + b"x" * 100) == b""


async def test_a_client_that_sends_half_a_frame_and_goes_costs_nothing(log: EmbeddedLog) -> None:
    for _ in range(20):
        with socket.create_connection(tuple(log.address.split(":"))) as half:  # type: ignore[arg-type]
            half.sendall(struct.pack(">i", 50_000_000) + b"x" * 1000)
    assert await answer_to(log, framed(struct.pack(">hhih", 18, 0, 7, -1))) != b""


@pytest.mark.parametrize("api_key, version", [(76, 1), (1, 13), (11, 9), (71, 0)])
async def test_what_is_not_served_is_refused_with_an_answer(
    log: EmbeddedLog, api_key: int, version: int
) -> None:
    # The second request shows that the connection lives on, and that answers keep their order.
    asked = framed(struct.pack(">hhih", api_key, version, 7, -1)) + framed(struct.pack(">hhih", 18, 0, 8, -1))
    answer = await answer_to(log, asked)
    size, correlation_id, tags, _throttle, error = struct.unpack_from(">iibih", answer)
    assert (correlation_id, tags, error) == (7, 0, 35)
    assert struct.unpack_from(">ih", answer, 4 + size + 4) == (8, 0)


async def test_what_has_no_such_answer_closes_the_connection(log: EmbeddedLog) -> None:
    assert await answer_to(log, framed(struct.pack(">hhih", 3, 12, 7, -1))) == b""
    assert await answer_to(log, framed(struct.pack(">hhih", 999, 0, 7, -1))) == b""


async def test_unknown_tagged_fields_keep_the_connection(log: EmbeddedLog) -> None:
    tags = b"\x01\x63\x05hello"
    # FindCoordinator v3 and Heartbeat v4, with tags in the header and in the body.
    find = struct.pack(">hhih", 10, 3, 1, -1) + tags + b"\x02g\x00" + tags
    beat = struct.pack(">hhih", 12, 4, 2, -1) + tags + b"\x02g" + struct.pack(">i", 1) + b"\x02m\x00" + tags
    answer = await answer_to(log, framed(find) + framed(beat))
    size, correlation_id, _tags, _throttle, error = struct.unpack_from(">iibih", answer)
    assert (correlation_id, error) == (1, 0)
    _size, correlation_id, _tags, _throttle, error = struct.unpack_from(">iibih", answer, 4 + size)
    assert (correlation_id, error) == (2, 25)
