"""Producer ids and transactions on the wire."""

from __future__ import annotations

from typing import Any

from streams.embedded.broker import Broker, Caller
from streams.embedded.codec import ERRORS, ResponseBody
from streams.embedded.errors import ProtocolRefusalError
from streams.embedded.transactions import PendingOffset

_NO_ERROR = 0


class TransactionHandlers:
    """Translates between requests and the transaction service."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._transactions = broker.transactions

    async def init_producer_id(self, request: Any, caller: Caller) -> ResponseBody:
        if request.transactional_id is None:
            producer_id = self._broker.producer_ids.take()
            await self._broker.commit.barrier()
            return {"producer_id": producer_id, "producer_epoch": 0}
        if not request.transactional_id:
            return _refused("invalid_request")
        timeout_ms = round(request.transaction_timeout.total_seconds() * 1000)
        try:
            owner = await self._transactions.init_producer(
                request.transactional_id,
                timeout_ms,
                getattr(request, "producer_id", -1),
                getattr(request, "producer_epoch", -1),
            )
        except ProtocolRefusalError as refusal:
            return _refused(_fenced_name(refusal.code, caller.version >= 4))
        return {"producer_id": owner.producer_id, "producer_epoch": owner.epoch}

    async def add_partitions(self, request: Any, caller: Caller) -> ResponseBody:
        topics = request.v3_and_below_topics
        unknown = {
            (topic.name, index)
            for topic in topics
            for index in topic.partitions
            if self._broker.topics.partition(topic.name, index) is None
        }
        code = _NO_ERROR
        if not unknown:
            try:
                await self._transactions.add_partitions(
                    request.v3_and_below_transactional_id,
                    request.v3_and_below_producer_id,
                    request.v3_and_below_producer_epoch,
                    [(topic.name, index) for topic in topics for index in topic.partitions],
                )
            except ProtocolRefusalError as refusal:
                code = ERRORS[_fenced_name(refusal.code, caller.version >= 2)]

        def outcome(partition: tuple[str, int]) -> int:
            if not unknown:
                return code
            return ERRORS["unknown_topic_or_partition" if partition in unknown else "operation_not_attempted"]

        return {
            "results_by_topic_v3_and_below": [
                {
                    "name": topic.name,
                    "results_by_partition": [
                        {"partition_index": index, "partition_error_code": outcome((topic.name, index))}
                        for index in topic.partitions
                    ],
                }
                for topic in topics
            ]
        }

    async def add_offsets(self, request: Any, caller: Caller) -> ResponseBody:
        try:
            await self._transactions.add_group(
                request.transactional_id, request.producer_id, request.producer_epoch, request.group_id
            )
        except ProtocolRefusalError as refusal:
            return _refused(_fenced_name(refusal.code, caller.version >= 2))
        return {}

    async def end(self, request: Any, caller: Caller) -> ResponseBody:
        try:
            await self._transactions.end(
                request.transactional_id,
                request.producer_id,
                request.producer_epoch,
                commit=request.committed,
            )
        except ProtocolRefusalError as refusal:
            return _refused(_fenced_name(refusal.code, caller.version >= 2))
        return {}

    async def commit_offsets(self, request: Any, caller: Caller) -> ResponseBody:
        code = ERRORS[await self._commit_offsets(request)]
        return {
            "topics": [
                {
                    "name": topic.name,
                    "partitions": [
                        {"partition_index": p.partition_index, "error_code": code} for p in topic.partitions
                    ],
                }
                for topic in request.topics
            ]
        }

    async def _commit_offsets(self, request: Any) -> str:
        error = self._broker.groups.machine.check_transactional_commit(
            request.group_id,
            getattr(request, "member_id", ""),
            getattr(request, "group_instance_id", None),
            getattr(request, "generation_id", -1),
        )
        if error not in ("", "none"):
            return error
        offsets = [
            PendingOffset(
                request.group_id,
                topic.name,
                p.partition_index,
                p.committed_offset,
                getattr(p, "committed_leader_epoch", -1),
                p.committed_metadata or "",
            )
            for topic in request.topics
            for p in topic.partitions
        ]
        try:
            await self._transactions.add_offsets(
                request.transactional_id, request.producer_id, request.producer_epoch, offsets
            )
            self._broker.groups.machine.ensure(request.group_id)
        except ProtocolRefusalError as refusal:
            # This API keeps the older name in all versions (KIP-588).
            return _fenced_name(refusal.code, False)
        return "none"


def _refused(name: str) -> ResponseBody:
    return {"error_code": ERRORS[name], "producer_id": -1, "producer_epoch": -1}


def _fenced_name(name: str, knows_fenced: bool) -> str:
    """Older versions of an API call a fenced producer by its epoch."""
    return "invalid_producer_epoch" if name == "producer_fenced" and not knows_fenced else name
