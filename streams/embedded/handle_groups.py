"""Consumer groups on the wire: membership, offsets, administration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streams.embedded.broker import Broker, Caller, now_ms
from streams.embedded.codec import ERRORS, ResponseBody
from streams.embedded.groups import Group, GroupState, JoinRequest
from streams.embedded.metadata import CommittedOffset

_UNKNOWN_TOPIC = ERRORS["unknown_topic_or_partition"]


class GroupHandlers:
    """Translates between requests and the group service."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._groups = broker.groups

    # -- membership ----------------------------------------------------------------------------

    async def join(self, request: Any, caller: Caller) -> ResponseBody:
        session_ms = _ms(request.session_timeout)
        rebalance_ms = _ms(getattr(request, "rebalance_timeout", None))
        answer = await self._groups.join(
            JoinRequest(
                group=request.group_id,
                member_id=request.member_id,
                instance_id=getattr(request, "group_instance_id", None),
                client_id=caller.client_id,
                client_host=caller.host,
                protocol_type=request.protocol_type,
                protocols=tuple((protocol.name, protocol.metadata) for protocol in request.protocols),
                session_timeout_ms=session_ms,
                rebalance_timeout_ms=rebalance_ms if rebalance_ms >= 0 else session_ms,
                requires_known_id=caller.version >= 4,
            )
        )
        # A generation must not be given out twice, whatever happens: it is on disk before it is told.
        await self._broker.commit.barrier()
        nameless = None if caller.version >= 7 else ""
        return {
            "error_code": ERRORS[answer.error],
            "generation_id": answer.generation,
            "protocol_type": answer.protocol_type,
            "protocol_name": answer.protocol if answer.protocol is not None else nameless,
            "leader": answer.leader,
            "member_id": answer.member_id,
            "members": [
                {"member_id": m.member_id, "group_instance_id": m.instance_id, "metadata": m.metadata}
                for m in answer.members
            ],
        }

    async def sync(self, request: Any, caller: Caller) -> ResponseBody:
        answer = await self._groups.sync(
            request.group_id,
            request.member_id,
            getattr(request, "group_instance_id", None),
            request.generation_id,
            {assigned.member_id: assigned.assignment for assigned in request.assignments},
        )
        return {
            "error_code": ERRORS[answer.error],
            "protocol_type": answer.protocol_type,
            "protocol_name": answer.protocol,
            "assignment": answer.assignment,
        }

    def heartbeat(self, request: Any, caller: Caller) -> ResponseBody:
        instance_id = getattr(request, "group_instance_id", None)
        error = self._groups.heartbeat(
            request.group_id, request.member_id, instance_id, request.generation_id
        )
        return {"error_code": ERRORS[error]}

    def refuse_consumer_protocol(self, request: Any, caller: Caller) -> ResponseBody:
        """group.protocol=consumer: the broker would have to assign partitions itself."""
        return {
            "error_code": ERRORS["unsupported_version"],
            "error_message": "this log serves group.protocol=classic only",
        }

    def leave(self, request: Any, caller: Caller) -> ResponseBody:
        if caller.version < 3:
            return {"error_code": ERRORS[self._groups.leave(request.group_id, request.member_id, None)]}
        return {
            "members": [
                {
                    "member_id": member.member_id,
                    "group_instance_id": member.group_instance_id,
                    "error_code": ERRORS[
                        self._groups.leave(request.group_id, member.member_id, member.group_instance_id)
                    ],
                }
                for member in request.members
            ]
        }

    # -- offsets -------------------------------------------------------------------------------

    async def commit_offsets(self, request: Any, caller: Caller) -> ResponseBody:
        error = self._groups.check_commit(
            request.group_id,
            request.member_id,
            getattr(request, "group_instance_id", None),
            request.generation_id_or_member_epoch,
        )
        if not request.group_id:
            error = "invalid_group_id"
        accepted: list[CommittedOffset] = []
        topics = [
            {
                "name": topic.name,
                "partitions": [
                    self._accept(topic.name, asked, error, accepted) for asked in topic.partitions
                ],
            }
            for topic in request.topics
        ]
        if accepted:
            self._groups.commit_offsets(request.group_id, accepted)
            await self._broker.commit.barrier()
        return {"topics": topics}

    def _accept(self, topic: str, asked: Any, error: str, accepted: list[CommittedOffset]) -> dict[str, Any]:
        index = asked.partition_index
        metadata = asked.committed_metadata or ""
        code = ERRORS[error]
        if not code and self._broker.topics.partition(topic, index) is None:
            code = _UNKNOWN_TOPIC
        if not code and len(metadata.encode()) > self._broker.settings.offset_metadata_bytes_max:
            code = ERRORS["offset_metadata_too_large"]
        if not code:
            epoch = getattr(asked, "committed_leader_epoch", -1)
            accepted.append(CommittedOffset(topic, index, asked.committed_offset, epoch, metadata, now_ms()))
        return {"partition_index": index, "error_code": code}

    def fetch_offsets(self, request: Any, caller: Caller) -> ResponseBody:
        known = self._groups.offsets(request.group_id)
        unstable: set[tuple[str, int]] = set()
        if getattr(request, "require_stable", False):
            unstable = self._broker.transactions.pending_partitions(request.group_id)
        if request.topics is None:
            wanted: dict[str, list[int]] = {}
            for topic, index in known:
                wanted.setdefault(topic, []).append(index)
        else:
            wanted = {topic.name: list(topic.partition_indexes) for topic in request.topics}
        return {
            "topics": [
                {
                    "name": topic,
                    "partitions": [
                        _offset(known.get((topic, i)), i, (topic, i) in unstable) for i in indexes
                    ],
                }
                for topic, indexes in wanted.items()
            ]
        }

    async def delete_offsets(self, request: Any, caller: Caller) -> ResponseBody:
        group = self._groups.machine.groups.get(request.group_id)
        if group is None:
            return {"error_code": ERRORS["group_id_not_found"]}
        if group.members:
            return {"error_code": ERRORS["non_empty_group"]}
        partitions = [(topic.name, p.partition_index) for topic in request.topics for p in topic.partitions]
        self._groups.delete_offsets(request.group_id, partitions)
        await self._broker.commit.barrier()
        return {
            "topics": [
                {
                    "name": topic.name,
                    "partitions": [{"partition_index": p.partition_index} for p in topic.partitions],
                }
                for topic in request.topics
            ]
        }

    # -- administration ------------------------------------------------------------------------

    def list_groups(self, request: Any, caller: Caller) -> ResponseBody:
        states = set(getattr(request, "states_filter", ()) or ())
        return {
            "groups": [
                {
                    "group_id": group.name,
                    "protocol_type": group.protocol_type,
                    "group_state": group.state.value,
                }
                for group in self._groups.machine.groups.values()
                if not states or group.state.value in states
            ]
        }

    def describe_groups(self, request: Any, caller: Caller) -> ResponseBody:
        return {"groups": [self._describe(name) for name in request.groups]}

    def _describe(self, name: str) -> dict[str, Any]:
        group = self._groups.machine.groups.get(name)
        if group is None:
            return {"group_id": name, "group_state": "Dead"}
        return {
            "group_id": name,
            "group_state": group.state.value,
            "protocol_type": group.protocol_type,
            "protocol_data": group.protocol or "",
            "members": _members(group),
        }

    async def delete_groups(self, request: Any, caller: Caller) -> ResponseBody:
        results = [
            {"group_id": name, "error_code": ERRORS[self._groups.delete(name)]}
            for name in request.groups_names
        ]
        await self._broker.commit.barrier()
        return {"results": results}


def _members(group: Group) -> Iterable[dict[str, Any]]:
    is_stable = group.state is GroupState.STABLE
    return [
        {
            "member_id": member.member_id,
            "group_instance_id": member.instance_id,
            "client_id": member.client_id,
            "client_host": member.client_host,
            "member_metadata": member.metadata(group.protocol) if is_stable else b"",
            "member_assignment": member.assignment,
        }
        for member in group.members.values()
    ]


def _offset(known: CommittedOffset | None, index: int, is_unstable: bool) -> dict[str, Any]:
    if is_unstable:
        return {
            "partition_index": index,
            "committed_offset": -1,
            "metadata": "",
            "error_code": ERRORS["unstable_offset_commit"],
        }
    if known is None:
        return {"partition_index": index, "committed_offset": -1, "metadata": ""}
    return {
        "partition_index": index,
        "committed_offset": known.offset,
        "committed_leader_epoch": known.leader_epoch,
        "metadata": known.metadata,
    }


def _ms(value: Any) -> int:
    """kio gives durations as timedelta."""
    return -1 if value is None else round(value.total_seconds() * 1000)
