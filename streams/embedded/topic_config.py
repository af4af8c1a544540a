"""The settings of a topic that the log understands, under Kafka's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from streams.embedded.settings import LogSettings

DELETE = "delete"
COMPACT = "compact"


class TopicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Effective settings of one topic: its own values over the log's defaults.

    ``compaction_lag_ms_max``: a record that a later one replaces is compacted away after this at the latest,
    however little there is to gain; half of it passes until its segment is closed. None = whenever it pays.
    """

    cleanup: frozenset[str]
    retention_ms: int
    retention_bytes: int
    segment_bytes: int
    segment_age_ms: int
    delete_retention_ms: int
    dirty_ratio_min: float
    compaction_lag_ms: int
    compaction_lag_ms_max: int | None
    batch_bytes_max: int

    @property
    def is_compacted(self) -> bool:
        return COMPACT in self.cleanup

    @property
    def is_deleted(self) -> bool:
        return DELETE in self.cleanup


class InvalidConfigError(ValueError):
    """A topic setting that the log does not have, or a value that it cannot take."""


def _integer(low: int) -> Callable[[str], None]:
    def check(value: str) -> None:
        if int(value) < low:
            raise ValueError(f"must be at least {low}")

    return check


def _ratio(value: str) -> None:
    if not 0.0 <= float(value) <= 1.0:
        raise ValueError("must be between 0 and 1")


def _cleanup(value: str) -> None:
    if not set(_policies(value)) <= {DELETE, COMPACT}:
        raise ValueError("must be delete, compact or both")


def _one_of(*allowed: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}, the log has no other")

    return check


def _policies(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


# Kafka's names. The second group changes nothing here, since every write is synced, there is one
# replica and batches are kept as they came; it is accepted because common tools always send it.
_CHECKS: dict[str, Callable[[str], None]] = {
    "cleanup.policy": _cleanup,
    "retention.ms": _integer(-1),
    "retention.bytes": _integer(-1),
    "segment.bytes": _integer(1024),
    "segment.ms": _integer(1),
    "delete.retention.ms": _integer(0),
    "min.cleanable.dirty.ratio": _ratio,
    "min.compaction.lag.ms": _integer(0),
    "max.message.bytes": _integer(0),
    "max.compaction.lag.ms": _integer(1),
    "compression.type": _one_of("producer"),
    "message.timestamp.type": _one_of("CreateTime"),
    "min.insync.replicas": _one_of("1"),
    "unclean.leader.election.enable": _one_of("false", "true"),
    "flush.messages": _integer(0),
    "flush.ms": _integer(0),
    "file.delete.delay.ms": _integer(0),
    "index.interval.bytes": _integer(0),
    "preallocate": _one_of("false", "true"),
    "segment.jitter.ms": _integer(0),
}


def check_config(config: Mapping[str, str]) -> None:
    """Raises InvalidConfigError for the first setting that cannot be taken."""
    for name, value in config.items():
        check = _CHECKS.get(name)
        if check is None:
            raise InvalidConfigError(
                f"{name}: no such topic setting here; known: {', '.join(sorted(_CHECKS))}"
            )
        try:
            check(value)
        except ValueError as error:
            raise InvalidConfigError(f"{name}={value!r}: {error}") from error


_NEVER_MS = 2**63 - 1  # Kafka's default of max.compaction.lag.ms


def effective_config(config: Mapping[str, str], settings: LogSettings) -> TopicConfig:
    """A topic's settings, checked before, over the log's defaults."""

    def number(name: str, default: int) -> int:
        return int(config.get(name, default))

    cleanup = frozenset(_policies(config.get("cleanup.policy", DELETE)))
    segment_age_ms = number("segment.ms", settings.segment_age_ms)
    lag_ms_max = number("max.compaction.lag.ms", _NEVER_MS)
    if COMPACT in cleanup:
        segment_age_ms = max(1, min(segment_age_ms, lag_ms_max // 2))
    return TopicConfig(
        cleanup=cleanup,
        retention_ms=number("retention.ms", settings.retention_ms),
        retention_bytes=number("retention.bytes", settings.retention_bytes),
        segment_bytes=number("segment.bytes", settings.segment_bytes),
        segment_age_ms=segment_age_ms,
        delete_retention_ms=number("delete.retention.ms", settings.delete_retention_ms),
        dirty_ratio_min=float(config.get("min.cleanable.dirty.ratio", settings.dirty_ratio_min)),
        compaction_lag_ms=number("min.compaction.lag.ms", 0),
        compaction_lag_ms_max=lag_ms_max if lag_ms_max < _NEVER_MS else None,
        batch_bytes_max=number("max.message.bytes", settings.batch_bytes_max),
    )


def described_config(config: Mapping[str, str], settings: LogSettings) -> list[tuple[str, str, bool]]:
    """(name, value, is default) of every setting that has an effect, for DescribeConfigs."""
    effective = effective_config(config, settings)
    values = {
        "cleanup.policy": ",".join(sorted(effective.cleanup)),
        "retention.ms": str(effective.retention_ms),
        "retention.bytes": str(effective.retention_bytes),
        "segment.bytes": str(effective.segment_bytes),
        "segment.ms": str(effective.segment_age_ms),
        "delete.retention.ms": str(effective.delete_retention_ms),
        "min.cleanable.dirty.ratio": str(effective.dirty_ratio_min),
        "min.compaction.lag.ms": str(effective.compaction_lag_ms),
        "max.message.bytes": str(effective.batch_bytes_max),
        "compression.type": "producer",
        "message.timestamp.type": "CreateTime",
        "min.insync.replicas": "1",
    }
    values.update(config)
    return [(name, value, name not in config) for name, value in values.items()]
