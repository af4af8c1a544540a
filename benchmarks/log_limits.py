"""What the embedded log costs: open connections, a start with much data, memory over time.

python -m benchmarks.log_limits [--short] [--connections 1000] [--gigabytes 10] [--minutes 10]
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.log_servers import embedded_log
from benchmarks.results import Result, parser, report
from streams.embedded.batch import LENGTH_OVERHEAD, BatchHeader
from streams.embedded.segment import Segment, write_snapshot

CONNECTIONS_GOAL_MB: Final = 100.0
START_GOAL_S: Final = 2.0
TOPIC: Final = "limits"
SEGMENT_BYTES: Final = 64 << 20
SEGMENT_RECORDS: Final = 491_520
INDEX_INTERVAL_BYTES: Final = 4_096
# Batches as clients make them unless told otherwise, so that indexes are as long as usual.
BATCH_BYTES: Final = 16 << 10
BATCH_RECORDS: Final = SEGMENT_RECORDS // (SEGMENT_BYTES // BATCH_BYTES)
RECORDS_PER_TURN: Final = 200
TURN_S: Final = 0.05
SAMPLE_S: Final = 5.0
SETTLE_S: Final = 30.0


def main() -> None:
    """Measures and reports."""
    options = parser("log_limits", __doc__)
    options.add_argument("--connections", type=int, default=1_000)
    options.add_argument("--gigabytes", type=float, default=10.0)
    options.add_argument("--minutes", type=float, default=10.0)
    chosen = options.parse_args()
    minutes = 0.5 if chosen.short else chosen.minutes
    rows = []
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        rows.append(connections(Path(folder) / "connections", chosen.connections))
        rows.append(start(Path(folder) / "start", chosen.gigabytes))
        rows.append(memory(Path(folder) / "memory", minutes))
    report(
        Result("log_limits", " ".join(["python -m benchmarks.log_limits", *sys.argv[1:]]), rows), chosen.json
    )


def connections(folder: Path, count: int) -> dict[str, Any]:
    """Memory that open, silent connections cost the log."""
    folder.mkdir()
    with embedded_log(folder) as log, ExitStack() as opened:
        _create(log.brokers, 1, {})
        before = memory_bytes(log.pid)
        host, port = log.brokers.rsplit(":", 1)
        for _ in range(count):
            opened.enter_context(socket.create_connection((host, int(port)), SETTLE_S))
        # An answer to somebody means that the connections before have been taken.
        AdminClient({"bootstrap.servers": log.brokers}).list_topics(timeout=SETTLE_S)
        cost = memory_bytes(log.pid) - before
    return _row(f"{count} connections", f"MB more (goal {CONNECTIONS_GOAL_MB:g})", cost / 1e6)


def start(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Seconds from nothing to listening, with full segments that are holes in sparse files."""
    folder.mkdir()
    with embedded_log(folder) as log:
        _create(log.brokers, 1, {"segment.bytes": str(SEGMENT_BYTES)})
    partition = next((folder / "embedded").rglob(f"{TOPIC}@*/0"))
    count = int(gigabytes * 1e9 / SEGMENT_BYTES)
    for number in range(count):
        _write_hole(partition, number * SEGMENT_RECORDS)
    began = time.perf_counter()
    with embedded_log(folder) as log:
        took_s = time.perf_counter() - began
        held = Consumer({"bootstrap.servers": log.brokers, "group.id": "limits"})
        end = held.get_watermark_offsets(TopicPartition(TOPIC, 0), SETTLE_S)[1]
        held.close()
    assert end == count * SEGMENT_RECORDS, f"the log ends at {end}: it did not take the segments"
    return _row(
        f"start with {count * SEGMENT_BYTES / 1e9:.1f} GB, interpreter included",
        f"s (goal {START_GOAL_S:g})",
        took_s,
    )


def _write_hole(partition: Path, base_offset: int) -> None:
    """A segment with its snapshot, of the full size and without content."""
    segment = Segment(partition, base_offset, INDEX_INTERVAL_BYTES)
    segment.create()
    os.ftruncate(segment.fd, SEGMENT_BYTES)
    for number in range(SEGMENT_BYTES // BATCH_BYTES):
        segment.note(_header(base_offset + number * BATCH_RECORDS))
    write_snapshot(segment.path, segment.snapshot([], []))
    segment.close()


def _header(offset: int) -> BatchHeader:
    """Of a batch without producer."""
    return BatchHeader(
        offset, BATCH_BYTES - LENGTH_OVERHEAD, 0, 2, 0, 0, BATCH_RECORDS - 1, 0, 0, -1, -1, -1, BATCH_RECORDS
    )


def memory(folder: Path, minutes: float) -> dict[str, Any]:
    """Memory in the last third of a run of steady traffic beside that in its second third."""
    folder.mkdir()
    with embedded_log(folder) as log:
        _create(log.brokers, 8, {"segment.bytes": str(4 << 20), "retention.bytes": str(8 << 20)})
        samples = _traffic(log.brokers, log.pid, minutes * 60)
    third = len(samples) // 3
    middle, last = max(samples[third : 2 * third]), max(samples[2 * third :])
    return _row(f"traffic for {minutes:g} min", f"MB at the end, {middle / 1e6:.1f} before", last / 1e6)


def _traffic(brokers: str, pid: int, seconds: float) -> list[int]:
    """Samples of the log's memory while records go in and out."""
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5})
    reader = Consumer({"bootstrap.servers": brokers, "group.id": "limits", "auto.offset.reset": "latest"})
    reader.subscribe([TOPIC])
    samples, sampled, ends = [], 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < ends:
        for number in range(RECORDS_PER_TURN):
            producer.produce(TOPIC, b"x" * 100, b"%d" % number)
        producer.poll(0)
        reader.consume(10_000, TURN_S)
        if now - sampled >= SAMPLE_S:
            sampled = now
            samples.append(memory_bytes(pid))
    producer.flush(SETTLE_S)
    reader.close()
    return samples


def memory_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _create(brokers: str, partitions: int, config: dict[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    topic = NewTopic(TOPIC, num_partitions=partitions, replication_factor=1, config=config)
    admin.create_topics([topic])[TOPIC].result(SETTLE_S)


def _row(what: str, unit: str, value: float) -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit}


if __name__ == "__main__":
    main()
