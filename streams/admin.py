"""Creates the engine's topics and says how existing ones differ from what is wanted.

Nothing that exists is changed: a site's operator may have good reasons for another retention. A different
number of partitions is an error, because keys would no longer be where their state is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, re-exported without __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streams.broker_security import broker_options
from streams.errors import BrokerUnavailableError, TopicError, TopicMismatchError
from streams.topics import TopicSpec

TIMEOUT_S = 15.0
LEADERS_PAUSE_S = 0.1
# A question asked while a partition has no leader may hang until its own time-out, so it is a short one.
LEADERS_ASK_S = 1.0


class TopicDifference(msgspec.Struct, frozen=True):
    """One way in which a topic is not as wanted. `found` is None for a topic or setting that is not there."""

    topic: str
    what: str
    wanted: str
    found: str | None
    severity: Literal["error", "warning"]
    advice: str

    def __str__(self) -> str:
        found = "missing" if self.found is None else f"is {self.found}"
        return f"{self.topic}: {self.what} {found}, wanted {self.wanted}; {self.advice}"


def init_topics(
    brokers: str, specs: Sequence[TopicSpec], timeout_s: float = TIMEOUT_S
) -> list[TopicDifference]:
    """Create the topics that do not exist; returns how those that did differ in their settings.

    Idempotent, also when several processes do it at once. Raises TopicMismatchError, after creating what was
    missing, if an existing topic has another number of partitions; TopicError if the log refuses to create
    one; BrokerUnavailableError.
    """
    admin = _admin(brokers)
    existing = _partition_counts(admin, brokers, timeout_s)
    missing = [spec for spec in specs if spec.name not in existing]
    if missing:
        _create(admin, missing, timeout_s)
        _await_leaders(brokers, missing, timeout_s)
    differences = _differences(admin, specs, _partition_counts(admin, brokers, timeout_s), timeout_s)
    errors = [difference for difference in differences if difference.severity == "error"]
    if errors:
        raise TopicMismatchError("\n".join(map(str, errors)))
    return differences


def check_topics(
    brokers: str, specs: Sequence[TopicSpec], timeout_s: float = TIMEOUT_S
) -> list[TopicDifference]:
    """Every difference between the wanted topics and those that exist; changes nothing."""
    admin = _admin(brokers)
    return _differences(admin, specs, _partition_counts(admin, brokers, timeout_s), timeout_s)


def _admin(brokers: str) -> AdminClient:
    return AdminClient({**broker_options(brokers), "log_level": 2})


def _partition_counts(admin: AdminClient, brokers: str, timeout_s: float) -> dict[str, int]:
    try:
        topics = admin.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"no answer from the log at {brokers} within {timeout_s:g} s: {error.args[0].str()}; "
            "check that it runs and that the address is right"
        ) from error
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _create(admin: AdminClient, specs: Sequence[TopicSpec], timeout_s: float) -> None:
    topics = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=spec.replication,
            config=dict(spec.config),
        )
        for spec in specs
    ]
    for name, created in admin.create_topics(topics, operation_timeout=timeout_s).items():
        error = _error_of(created, timeout_s)
        # Another process may have been faster; what it made is compared like any other.
        if error is not None and error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicError(f"topic {name} could not be created: {error.str()}")


def _await_leaders(brokers: str, specs: Sequence[TopicSpec], timeout_s: float) -> None:
    """Until every new partition answers: a cluster acknowledges a topic before its brokers lead it.

    A producer that is quicker may lose its first records (KAFKA-15591; see streams/first_records.py).
    """
    deadline_s = time.monotonic() + timeout_s
    waiting = [TopicPartition(spec.name, part) for spec in specs for part in range(spec.partitions)]
    while True:
        errors = _leader_errors(brokers, waiting)
        waiting = list(errors)
        if not waiting:
            return
        if time.monotonic() > deadline_s:
            why = "; ".join(sorted({f"{place.topic}: {error.str()}" for place, error in errors.items()}))
            raise TopicError(
                f"topics without a leader {timeout_s:g} s after they were created: {why}; "
                "check the cluster's health"
            )
        time.sleep(LEADERS_PAUSE_S)


def _leader_errors(brokers: str, places: Sequence[TopicPartition]) -> dict[TopicPartition, KafkaError]:
    """Which partitions cannot say where they end, and why."""
    # A new client for each round: one that has once seen a topic without leaders may keep that for 15 s.
    admin = _admin(brokers)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own gap
    asked = admin.list_offsets(dict.fromkeys(places, latest), request_timeout=LEADERS_ASK_S)
    errors = {place: _error_of(future, TIMEOUT_S) for place, future in asked.items()}
    return {place: error for place, error in errors.items() if error is not None}


def _error_of(future: Future[Any], timeout_s: float) -> KafkaError | None:
    try:
        future.result(timeout_s)
    except KafkaException as exception:
        error: KafkaError = exception.args[0]
        return error
    return None


def _differences(
    admin: AdminClient, specs: Sequence[TopicSpec], partitions: dict[str, int], timeout_s: float
) -> list[TopicDifference]:
    there = [spec for spec in specs if spec.name in partitions]
    configs = _describe(admin, [spec.name for spec in there], timeout_s)
    differences = [_missing(spec) for spec in specs if spec.name not in partitions]
    for spec in there:
        if partitions[spec.name] != spec.partitions:
            differences.append(_other_partitions(spec, partitions[spec.name]))
        differences += config_differences(spec, configs[spec.name])
    return differences


def _describe(admin: AdminClient, names: Sequence[str], timeout_s: float) -> dict[str, dict[str, str | None]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    described: dict[str, dict[str, str | None]] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=timeout_s).items():
        try:
            entries = future.result(timeout_s)
        except KafkaException as error:
            raise TopicError(
                f"settings of topic {resource.name} cannot be read: {error.args[0].str()}"
            ) from error
        described[resource.name] = {name: entry.value for name, entry in entries.items()}
    return described


def config_differences(spec: TopicSpec, found: dict[str, str | None]) -> list[TopicDifference]:
    """Settings that differ from the spec's, which other defaults of the log may explain."""
    return [
        TopicDifference(
            spec.name,
            name,
            wanted,
            found.get(name),
            "warning",
            f"keep it if it is meant, else set it: kafka-configs --alter --entity-type topics --entity-name "
            f"{spec.name} --add-config {name}={wanted}",
        )
        for name, wanted in spec.config.items()
        if not _same(wanted, found.get(name))
    ]


def _same(wanted: str, found: str | None) -> bool:
    return found is not None and _words(wanted) == _words(found)


def _words(value: str) -> set[str]:
    """cleanup.policy is a list whose order means nothing."""
    return {word.strip() for word in value.split(",")}


def _missing(spec: TopicSpec) -> TopicDifference:
    return TopicDifference(
        spec.name, "topic", f"{spec.partitions} partitions", None, "error", "run `tidal topics init`"
    )


def _other_partitions(spec: TopicSpec, found: int) -> TopicDifference:
    return TopicDifference(
        spec.name,
        "number of partitions",
        str(spec.partitions),
        str(found),
        "error",
        f"set topics.partitions to {found} to use the topic as it is, or copy its records into a new topic "
        f"with {spec.partitions}; adding partitions would move keys away from their state",
    )
