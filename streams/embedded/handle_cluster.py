"""Answers about the log itself: ApiVersions, Metadata, FindCoordinator, DescribeCluster."""

from __future__ import annotations

from typing import Any

from streams.embedded.broker import NODE_ID, Broker, Caller
from streams.embedded.codec import APIS, ERRORS, ResponseBody

_UNKNOWN_TOPIC = ERRORS["unknown_topic_or_partition"]


class ClusterHandlers:
    """One node that is leader, controller and coordinator of everything."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def api_versions(self, request: Any, caller: Caller) -> ResponseBody:
        return api_versions_body(0)

    def metadata(self, request: Any, caller: Caller) -> ResponseBody:
        # Version 0 asks for all topics with an empty list, later ones with null.
        everything = request.topics is None or (caller.version == 0 and not request.topics)
        names = self._broker.topics.names() if everything else [topic.name for topic in request.topics]
        return {
            "brokers": [self._node()],
            "cluster_id": self._broker.cluster_id,
            "controller_id": NODE_ID,
            "topics": [self._topic(name) for name in names],
        }

    def find_coordinator(self, request: Any, caller: Caller) -> ResponseBody:
        if getattr(request, "key_type", 0) not in (0, 1):
            return {"error_code": ERRORS["invalid_request"], "error_message": "only groups and transactions"}
        return {"error_message": None, **self._node()}

    def describe_cluster(self, request: Any, caller: Caller) -> ResponseBody:
        if getattr(request, "endpoint_type", 1) != 1:
            return {"error_code": ERRORS["unsupported_endpoint_type"], "cluster_id": self._broker.cluster_id}
        return {
            "cluster_id": self._broker.cluster_id,
            "endpoint_type": 1,
            "controller_id": NODE_ID,
            "brokers": [{**self._node(), "broker_id": NODE_ID}],
        }

    def _node(self) -> dict[str, Any]:
        return {"node_id": NODE_ID, "host": self._broker.host, "port": self._broker.port, "rack": None}

    def _topic(self, name: str) -> dict[str, Any]:
        logs = self._broker.topics.partitions(name)
        if logs is None:
            # Never made by asking: a consumer's look-up would fix a wrong number of partitions.
            return {"error_code": _UNKNOWN_TOPIC, "name": name, "partitions": ()}
        return {
            "name": name,
            "partitions": [
                {
                    "partition_index": log.index,
                    "leader_id": NODE_ID,
                    "leader_epoch": 0,
                    "replica_nodes": (NODE_ID,),
                    "isr_nodes": (NODE_ID,),
                }
                for log in logs
            ],
        }


def api_versions_body(error: int) -> ResponseBody:
    """What is served, for any version of ApiVersions."""
    return {
        "error_code": error,
        "api_keys": [
            {"api_key": api.key, "min_version": api.version_min, "max_version": api.version_max}
            for api in APIS.values()
        ],
    }
