"""Administration of topics: create, delete, grow, describe and change their settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from streams.embedded.broker import NODE_ID, Broker, Caller
from streams.embedded.codec import ERRORS, ResponseBody
from streams.embedded.errors import ProtocolRefusalError
from streams.embedded.topic_config import InvalidConfigError, check_config, described_config
from streams.embedded.topics import is_valid_name

_TOPIC, _BROKER = 2, 4
_SOURCE_DYNAMIC_TOPIC, _SOURCE_DEFAULT = 1, 5
_SET, _DELETE = 0, 1


class TopicHandlers:
    """Every change is durable when it is answered."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    # -- topics --------------------------------------------------------------------------------

    async def create(self, request: Any, caller: Caller) -> ResponseBody:
        results = [self._create(topic, request.validate_only) for topic in request.topics]
        await asyncio.to_thread(self._broker.topics.sync_folders)
        await self._broker.commit.barrier()
        return {"topics": results}

    def _create(self, wanted: Any, validate_only: bool) -> dict[str, Any]:
        config = {entry.name: entry.value for entry in wanted.configs if entry.value is not None}
        try:
            partitions = self._checked_partitions(wanted)
            _checked_config(config)
        except ProtocolRefusalError as refusal:
            return {"name": wanted.name, "error_code": ERRORS[refusal.code], "error_message": str(refusal)}
        if not validate_only:
            self._broker.topics.create(wanted.name, partitions, config)
        return {
            "name": wanted.name,
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": [
                {
                    "name": name,
                    "value": value,
                    "config_source": _SOURCE_DEFAULT if is_default else _SOURCE_DYNAMIC_TOPIC,
                }
                for name, value, is_default in described_config(config, self._broker.settings)
            ],
        }

    def _checked_partitions(self, wanted: Any) -> int:
        topics = self._broker.topics
        if not is_valid_name(wanted.name):
            raise ProtocolRefusalError(
                "invalid_topic_exception", f"{wanted.name!r}: 1 to 249 of a-z A-Z 0-9 . _ - are allowed"
            )
        if topics.partitions(wanted.name) is not None:
            raise ProtocolRefusalError("topic_already_exists", wanted.name)
        if wanted.replication_factor not in (-1, 1):
            raise ProtocolRefusalError(
                "invalid_replication_factor", f"{wanted.replication_factor}; this log is one node, use 1"
            )
        count = len(wanted.assignments) or wanted.num_partitions
        if count == -1:
            count = self._broker.settings.partitions_default
        if any(tuple(assignment.broker_ids) != (NODE_ID,) for assignment in wanted.assignments):
            raise ProtocolRefusalError("invalid_replica_assignment", f"the only node is {NODE_ID}")
        self._check_count(count, 0)
        return int(count)

    def _check_count(self, count: int, present: int) -> None:
        if count < 1:
            raise ProtocolRefusalError("invalid_partitions", f"{count} partitions; at least 1")
        total = self._broker.topics.count() - present + count
        if total > self._broker.settings.partitions_max:
            raise ProtocolRefusalError(
                "invalid_partitions",
                f"{total} partitions in all, partitions_max is {self._broker.settings.partitions_max}",
            )

    async def delete(self, request: Any, caller: Caller) -> ResponseBody:
        deleted = []
        responses = []
        for name in request.topic_names:
            known = self._broker.topics.partitions(name) is not None
            if known:
                deleted.append(self._broker.topics.delete(name))
            responses.append(
                {"name": name, "error_code": 0 if known else ERRORS["unknown_topic_or_partition"]}
            )
        await self._broker.commit.barrier()
        for topic in deleted:
            await asyncio.to_thread(self._broker.topics.remove_files, topic)
            self._broker.topics.purged(topic)
        return {"responses": responses}

    async def create_partitions(self, request: Any, caller: Caller) -> ResponseBody:
        results = []
        for wanted in request.topics:
            try:
                self._grow(wanted, request.validate_only)
            except ProtocolRefusalError as refusal:
                results.append(
                    {"name": wanted.name, "error_code": ERRORS[refusal.code], "error_message": str(refusal)}
                )
            else:
                results.append({"name": wanted.name})
        await asyncio.to_thread(self._broker.topics.sync_folders)
        await self._broker.commit.barrier()
        return {"results": results}

    def _grow(self, wanted: Any, validate_only: bool) -> None:
        logs = self._broker.topics.partitions(wanted.name)
        if logs is None:
            raise ProtocolRefusalError("unknown_topic_or_partition", wanted.name)
        if wanted.count <= len(logs):
            raise ProtocolRefusalError(
                "invalid_partitions", f"{wanted.name} has {len(logs)} partitions, {wanted.count} is not more"
            )
        self._check_count(wanted.count, len(logs))
        if not validate_only:
            self._broker.topics.grow(wanted.name, wanted.count)

    # -- settings ------------------------------------------------------------------------------

    def describe_configs(self, request: Any, caller: Caller) -> ResponseBody:
        return {"results": [self._describe(resource) for resource in request.resources]}

    def _describe(self, resource: Any) -> dict[str, Any]:
        answer = {"resource_type": resource.resource_type, "resource_name": resource.resource_name}
        if resource.resource_type == _BROKER:
            return {
                **answer,
                "error_message": None,
                "configs": self._broker_configs(resource.configuration_keys),
            }
        if resource.resource_type != _TOPIC:
            return {
                **answer,
                "error_code": ERRORS["invalid_request"],
                "error_message": "only topics and the broker",
            }
        if self._broker.topics.partitions(resource.resource_name) is None:
            return {**answer, "error_code": ERRORS["unknown_topic_or_partition"], "error_message": None}
        described = described_config(
            self._broker.topics.config(resource.resource_name), self._broker.settings
        )
        return {
            **answer,
            "configs": [
                {
                    "name": name,
                    "value": value,
                    "config_source": _SOURCE_DEFAULT if is_default else _SOURCE_DYNAMIC_TOPIC,
                }
                for name, value, is_default in described
                if not resource.configuration_keys or name in resource.configuration_keys
            ],
        }

    def _broker_configs(self, keys: tuple[str, ...] | None) -> list[dict[str, Any]]:
        settings = self._broker.settings
        values = {
            "broker.id": NODE_ID,
            "auto.create.topics.enable": "false",
            "num.partitions": settings.partitions_default,
            "log.retention.ms": settings.retention_ms,
            "log.segment.bytes": settings.segment_bytes,
            "message.max.bytes": settings.batch_bytes_max,
            "group.initial.rebalance.delay.ms": settings.group_initial_delay_ms,
            "transaction.max.timeout.ms": settings.transaction_timeout_ms_max,
        }
        return [
            {"name": name, "value": str(value), "read_only": True, "config_source": _SOURCE_DEFAULT}
            for name, value in values.items()
            if not keys or name in keys
        ]

    async def alter_configs(self, request: Any, caller: Caller) -> ResponseBody:
        """Replace all settings of a topic."""
        return await self._alter(
            request,
            lambda old, asked: {entry.name: entry.value for entry in asked if entry.value is not None},
        )

    async def incremental_alter_configs(self, request: Any, caller: Caller) -> ResponseBody:
        """Set or remove single settings."""
        return await self._alter(request, _merged)

    async def _alter(self, request: Any, change: Any) -> ResponseBody:
        responses = []
        for resource in request.resources:
            answer = {"resource_type": resource.resource_type, "resource_name": resource.resource_name}
            try:
                self._alter_topic(resource, change, request.validate_only)
            except ProtocolRefusalError as refusal:
                answer |= {"error_code": ERRORS[refusal.code], "error_message": str(refusal)}
            responses.append(answer)
        await self._broker.commit.barrier()
        return {"responses": responses}

    def _alter_topic(self, resource: Any, change: Any, validate_only: bool) -> None:
        if resource.resource_type != _TOPIC:
            raise ProtocolRefusalError("invalid_request", "only settings of topics can be changed")
        name = resource.resource_name
        if self._broker.topics.partitions(name) is None:
            raise ProtocolRefusalError("unknown_topic_or_partition", name)
        config = change(self._broker.topics.config(name), resource.configs)
        _checked_config(config)
        if not validate_only:
            self._broker.topics.configure(name, config)


def _merged(old: Mapping[str, str], asked: Any) -> dict[str, str]:
    config = dict(old)
    for entry in asked:
        if entry.config_operation == _SET and entry.value is not None:
            config[entry.name] = entry.value
        elif entry.config_operation == _DELETE:
            config.pop(entry.name, None)
        else:
            raise ProtocolRefusalError("invalid_config", f"{entry.name}: only set and delete are known")
    return config


def _checked_config(config: Mapping[str, str]) -> None:
    try:
        check_config(config)
    except InvalidConfigError as error:
        raise ProtocolRefusalError("invalid_config", str(error)) from error
