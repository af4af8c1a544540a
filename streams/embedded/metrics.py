"""A log's numbers for Prometheus, over HTTP on a port of their own. Nothing here runs unless it is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from streams.embedded.broker import Broker
from streams.embedded.codec import APIS
from streams.embedded.groups import GroupState
from streams.embedded.measures import Histogram
from streams.embedded.server import Server

_HEAD_BYTES_MAX = 8 * 1024
_HEAD_TIMEOUT_S = 5.0
_SCRAPES_MAX = 16


class LogCollector(Collector):
    """Reads the state of a log; on its event loop."""

    def __init__(self, broker: Broker, server: Server) -> None:
        self._broker = broker
        self._server = server

    def collect(self) -> Iterator[Metric]:
        yield from self._storage()
        yield from self._retention()
        yield from self._connections()
        yield from self._groups()

    def _storage(self) -> Iterator[Metric]:
        names = ("topic",)
        count = CounterMetricFamily("tidal_log_appended_records", "Records appended.", labels=names)
        size = CounterMetricFamily("tidal_log_appended_bytes", "Bytes appended.", labels=names)
        kept = GaugeMetricFamily("tidal_log_size_bytes", "Bytes of all segments.", labels=names)
        segments = GaugeMetricFamily("tidal_log_segments", "Segments.", labels=names)
        for topic in self._broker.topics.names():
            logs = self._broker.topics.partitions(topic) or []
            count.add_metric((topic,), sum(log.appended_records for log in logs))
            size.add_metric((topic,), sum(log.appended_bytes for log in logs))
            kept.add_metric((topic,), sum(log.size() for log in logs))
            segments.add_metric((topic,), sum(len(log.segments) for log in logs))
        yield from (count, size, kept, segments)
        commit = self._broker.commit
        sync = HistogramMetricFamily("tidal_log_fsync_seconds", "Writing and syncing one file.")
        _add(sync, (), commit.sync_s)
        yield sync
        yield GaugeMetricFamily("tidal_log_unsynced_bytes", "Appended, not on disk.", commit.unsynced_bytes)
        yield GaugeMetricFamily(
            "tidal_log_disk_is_low",
            "1 while the disk is too full for batches.",
            self._broker.disk.is_low or commit.is_out_of_space,
        )

    def _retention(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            "tidal_log_retention_held_bytes",
            "Expired bytes kept because a group has not read them.",
            labels=("topic", "group"),
        )
        sums: Counter[tuple[str, str]] = Counter()
        guards = self._broker.guards
        for (topic, _), entry in guards.held.items():
            sums[(topic, entry.group)] += entry.bytes
        for labels, size in sums.items():
            held.add_metric(labels, size)
        alive = GaugeMetricFamily(
            "tidal_log_guard_active", "1 while retention waits for the group.", labels=("group",)
        )
        for guard in guards.guards:
            alive.add_metric((guard.group,), not guards.is_dead(guard.group))
        yield from (held, alive)

    def _connections(self) -> Iterator[Metric]:
        broker = self._broker
        yield GaugeMetricFamily("tidal_log_connections", "Open connections.", len(self._server.connections))
        closed = CounterMetricFamily(
            "tidal_log_connections_closed", "Connections closed by the log.", labels=("why",)
        )
        for why, count in broker.measures.closed.items():
            closed.add_metric((why,), count)
        yield closed
        yield GaugeMetricFamily("tidal_log_received_bytes", "Requests not begun.", broker.received.used)
        yield GaugeMetricFamily("tidal_log_unsent_bytes", "Answers not taken.", broker.unsent.used)
        requests = HistogramMetricFamily(
            "tidal_log_request_seconds",
            "From a request's turn to its answer, with all waits.",
            labels=("api",),
        )
        for key, histogram in broker.measures.request_s.items():
            if any(histogram.counts):
                _add(requests, (APIS[key].name,), histogram)
        yield requests

    def _groups(self) -> Iterator[Metric]:
        groups = self._broker.groups.machine.groups.values()
        states = Counter(group.state for group in groups)
        by_state = GaugeMetricFamily("tidal_log_groups", "Consumer groups.", labels=("state",))
        for state in GroupState:
            by_state.add_metric((state.value,), states[state])
        yield by_state
        members = sum(len(group.members) for group in groups)
        yield GaugeMetricFamily("tidal_log_group_members", "Members of all consumer groups.", members)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    buckets = []
    below = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append((f"{bound:g}" if bound != float("inf") else "+Inf", below))
    family.add_metric(labels, buckets, histogram.total)


class MetricsServer:
    """Answers GET /metrics, one request for each connection."""

    def __init__(self, broker: Broker, server: Server) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(LogCollector(broker, server))
        self._server: asyncio.Server | None = None
        self._scrapes = 0

    async def start(self, host: str, port: int) -> int:
        """Begin to listen; returns the port really bound. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES_MAX)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._scrapes += 1
        try:
            if self._scrapes <= _SCRAPES_MAX:
                async with asyncio.timeout(_HEAD_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError):
            # Whoever asks like this gets no answer.
            return
        finally:
            self._scrapes -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET" or path != b"/metrics":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        body = generate_latest(self._registry)
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            % (CONTENT_TYPE_LATEST.encode(), len(body))
        ) + body
