"""Builds the Faust application of a worker: topics, tables, one agent for each shard's topics.

An exception in a stock agent is logged, its batch skipped and the agent restarted: a hole in the fold. Here
it stops the worker with an error; the supervisor starts it again from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
import msgspec
from aiokafka.errors import IllegalStateError
from faust.types import TP

from streams.faust import store, transport
from streams.faust.credentials import broker_credentials
from streams.faust.owner import PartitionOwner
from streams.faust.scheduler import BatchScheduler
from streams.faust.schema import BatchSchema
from streams.faust.table import ShardTable

Handler = Callable[[Any], Awaitable[None]]
"""Takes a Faust event whose ``value`` is a sequence of ``Records`` of one partition."""

_COMMIT_INTERVAL_S = 1.0
# Between the fetcher and an agent. A batch weighs up to fetch_bytes_max, and one that waits here is older and
# smaller than what the next poll would bring: with 16, two rounds of eight partitions waited, and at 5,000
# events/s on a busy machine half the user records were 280 ms old or more when they were folded; with 2, 190.
_QUEUED_BATCHES_MAX = 2
# Of all partitions in one poll; what Faust takes for a record is a part of bounded size.
_POLL_PARTS_MAX = 64


class AppSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the worker takes part in the group.

    Attributes:
        name: consumer group and prefix of the changelog topics.
        worker: this worker's name; unique among the workers of the group.
        brokers: ``host:port`` of at least one broker.
        session_timeout_s: after a kill, how long the partitions stand still.
        static_membership: keep the member's place over a restart within the session.
        fetch_bytes_max: of one partition in one fetch.
    """

    name: str
    worker: str
    brokers: Sequence[str]
    datadir: str
    session_timeout_s: float = 10.0
    heartbeat_s: float = 1.0
    rebalance_timeout_s: float = 30.0
    static_membership: bool = False
    fetch_bytes_max: int = 1 << 20


class ShardApp(faust.App):
    """A Faust application that knows who owns the state of its partitions."""

    partition_owner: PartitionOwner

    async def resume(self, partition: int, positions: Mapping[str, int]) -> None:
        """Deliver the partition's records from ``positions`` (topic -> offset) on, if it is still
        assigned.
        """
        offsets = {TP(topic, partition): offset for topic, offset in positions.items()}
        try:
            for tp, offset in offsets.items():
                await self.consumer.seek(tp, offset)
        except IllegalStateError:  # a rebalance took it; its successor seeks for itself
            return
        self.consumer.resume_partitions(set(offsets))

    def acknowledge(self, batch: Any) -> None:
        """Release the offsets of a Faust event that an agent was given."""
        batch.ack()


def build_app(
    settings: AppSettings,
    owner: PartitionOwner,
    agents: Mapping[str, tuple[Sequence[str], Handler]],
    partitions: int,
) -> ShardApp:
    """The application, not started. ``agents`` maps a shard's name to its topics and its handler.

    The first shard's store leads: the owner hears each rebalance once.
    """
    transport.register()
    store.register()
    app = _new_app(settings, partitions)
    app.partition_owner = owner
    for index, (shard, (topics, handler)) in enumerate(agents.items()):
        app.Table(
            shard,
            partitions=partitions,
            schema=BatchSchema(),
            options={"leads": index == 0},
            value_type=bytes,
        )
        _add_agent(app, owner, shard, topics, handler, partitions)

    async def revoked(_: Any, /, *arguments: Any, **options: Any) -> None:
        await owner.on_revoked()

    app.on_partitions_revoked.connect(revoked, weak=False)
    return app


def _new_app(settings: AppSettings, partitions: int) -> ShardApp:
    return ShardApp(
        settings.name,
        broker=[f"{transport.SCHEME}://{address}" for address in settings.brokers],
        broker_credentials=broker_credentials(),
        store=f"{store.SCHEME}://",
        datadir=settings.datadir,
        Table=ShardTable,
        ConsumerScheduler=BatchScheduler,
        canonical_url=f"http://{settings.worker}",
        web_enabled=False,
        topic_disable_leader=True,
        # A standby would be assigned the changelog's partition, and Faust would feed it one record at a time.
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_partitions=partitions,
        stream_wait_empty=False,
        stream_buffer_maxsize=_QUEUED_BATCHES_MAX,
        stream_recovery_delay=0.0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.worker if settings.static_membership else None,
        consumer_max_fetch_size=settings.fetch_bytes_max,
        broker_max_poll_records=_POLL_PARTS_MAX,
        broker_commit_interval=_COMMIT_INTERVAL_S,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
    )


def _add_agent(
    app: ShardApp,
    owner: PartitionOwner,
    shard: str,
    topics: Sequence[str],
    handler: Handler,
    partitions: int,
) -> None:
    channel = app.topic(*topics, schema=BatchSchema(), partitions=partitions, value_type=bytes)

    async def fold(stream: Any) -> None:
        # No generator: Faust would then acknowledge what it takes from it.
        try:
            async for event in stream.noack().events():
                await handler(event)
        except Exception as error:
            owner.fail(error)
            raise

    fold.__qualname__ = fold.__name__ = f"{shard}_shard"
    app.agent(channel, name=f"{shard}-shard")(fold)
