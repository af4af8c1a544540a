"""Finds the handler of a request by the key of its API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from streams.embedded.broker import Broker, Caller
from streams.embedded.codec import ResponseBody
from streams.embedded.handle_cluster import ClusterHandlers
from streams.embedded.handle_fetch import FetchHandler
from streams.embedded.handle_groups import GroupHandlers
from streams.embedded.handle_offsets import OffsetHandlers
from streams.embedded.handle_produce import ProduceHandler
from streams.embedded.handle_topics import TopicHandlers
from streams.embedded.handle_transactions import TransactionHandlers

Handler = Callable[[Any, Caller], ResponseBody | Awaitable[ResponseBody]]


class Dispatcher:
    """Produce and Fetch by name, all others by key; the login belongs to the connection."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.produce = ProduceHandler(broker)
        self.fetch = FetchHandler(broker)
        cluster, topics, offsets = ClusterHandlers(broker), TopicHandlers(broker), OffsetHandlers(broker)
        groups, transactions = GroupHandlers(broker), TransactionHandlers(broker)
        self.handlers: dict[int, Handler] = {
            2: offsets.list_offsets,
            3: cluster.metadata,
            8: groups.commit_offsets,
            9: groups.fetch_offsets,
            10: cluster.find_coordinator,
            11: groups.join,
            12: groups.heartbeat,
            13: groups.leave,
            14: groups.sync,
            15: groups.describe_groups,
            16: groups.list_groups,
            18: cluster.api_versions,
            19: topics.create,
            20: topics.delete,
            21: offsets.delete_records,
            22: transactions.init_producer_id,
            24: transactions.add_partitions,
            25: transactions.add_offsets,
            26: transactions.end,
            28: transactions.commit_offsets,
            32: topics.describe_configs,
            33: topics.alter_configs,
            37: topics.create_partitions,
            42: groups.delete_groups,
            44: topics.incremental_alter_configs,
            47: groups.delete_offsets,
            60: cluster.describe_cluster,
            68: groups.refuse_consumer_protocol,
        }
