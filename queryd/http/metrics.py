"""Prometheus metrics of the daemon: histograms by route and query stage, gauges read at scrape time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

ROUTE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Dense around the goals of 5 ms (p50) and 15 ms (p99) for a page."""
STAGE_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
GAUGES_MAX = 500
"""Bound on the gauges taken from the engine's status, whatever it contains."""


class StatusSource(Protocol):
    """Whatever can say how it is doing."""

    def status(self) -> Mapping[str, Any]:
        """A tree of names to values; numbers become gauges."""
        ...


class HttpMetrics:
    """Metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tidal_http_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "tidal_http_request_seconds",
            "Time from a request's first byte handled to its reply.",
            ("route", "method"),
            buckets=ROUTE_BUCKETS_S,
            registry=self.registry,
        )
        self.query_seconds = Histogram(
            "tidal_query_seconds",
            "Time of a query inside the engine, waiting for AFTER included.",
            buckets=ROUTE_BUCKETS_S,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "tidal_query_stage_seconds",
            "Time of each stage of the queries that were analyzed.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tidal_http_requests_in_flight", "Requests being served.", registry=self.registry
        )
        self.signals = Counter(
            "tidal_http_signals", "Events received, by outcome.", ("outcome",), registry=self.registry
        )
        self.degraded = Counter(
            "tidal_query_degraded",
            "Stages that were cut or skipped, by stage.",
            ("stage",),
            registry=self.registry,
        )

    def watch(self, source: StatusSource) -> None:
        """Exports the numbers of `source.status()` as gauges, read at each scrape."""
        self.registry.register(_StatusCollector(source))

    def summary(self) -> dict[str, float]:
        """Totals for the status page: requests and those that failed."""
        samples = [sample for metric in self.requests.collect() for sample in metric.samples]
        totals = [sample for sample in samples if sample.name.endswith("_total")]
        failed = [sample.value for sample in totals if sample.labels["status"] >= "500"]
        return {"requests": sum(sample.value for sample in totals), "failed": sum(failed)}

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)


class _StatusCollector(Collector):
    def __init__(self, source: StatusSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            "tidal_engine", "Numbers of /v1/status, by their path there.", labels=("name",)
        )
        for count, (path, value) in enumerate(numbers_of(self._source.status())):
            if count >= GAUGES_MAX:
                break
            gauge.add_metric((path,), value)
        yield gauge

    def describe(self) -> Iterable[Metric]:
        return ()


def numbers_of(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a tree of mappings, with its dotted path; booleans count as 0 and 1."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from numbers_of(value, f"{path}.")
        elif isinstance(value, int | float):
            yield path, float(value)
