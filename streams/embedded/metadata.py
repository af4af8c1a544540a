"""Topics, committed offsets, group generations, producer ids and transactions: the durable small things.

One state object, changed only by applying an entry, and each entry goes to the journal: what a restart
reads is by construction what was in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from streams.embedded.commit import GroupCommit
from streams.embedded.errors import LogFolderError
from streams.embedded.journal import Journal
from streams.embedded.transactions import Transaction

TopicPartition = tuple[str, int]


class _Entry(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the journal's entries; the class name is the tag on disk."""


class TopicCreated(_Entry, frozen=True):
    """A topic. `incarnation` names its folder, so that a deleted namesake's files never come back."""

    name: str
    incarnation: int
    partitions: int
    config: dict[str, str]


class TopicDeleted(_Entry, frozen=True):
    name: str


class TopicPurged(_Entry, frozen=True):
    """The files of a deleted topic are gone."""

    name: str
    incarnation: int


class StartMoved(_Entry, frozen=True):
    """Records of a partition before `offset` are deleted."""

    topic: str
    partition: int
    offset: int


class Compacted(_Entry, frozen=True):
    """Up to which offset a partition was compacted when, as (end, ms); deletes wait for their delay."""

    topic: str
    partition: int
    marks: list[tuple[int, int]]


class CommittedOffset(msgspec.Struct, frozen=True, array_like=True):
    """A group's position in one partition."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    at_ms: int


class OffsetsCommitted(_Entry, frozen=True):
    group: str
    offsets: list[CommittedOffset]


class OffsetsDeleted(_Entry, frozen=True):
    group: str
    partitions: list[TopicPartition]


class GroupAdvanced(_Entry, frozen=True):
    group: str
    generation: int
    protocol_type: str


class GroupDeleted(_Entry, frozen=True):
    group: str


class ProducerIdsReserved(_Entry, frozen=True):
    """All ids below `next_id` may have been given out."""

    next_id: int


class TransactionChanged(_Entry, frozen=True):
    transaction: Transaction


class TransactionForgotten(_Entry, frozen=True):
    transactional_id: str


class ClusterNamed(_Entry, frozen=True):
    cluster_id: str


class Guard(msgspec.Struct, frozen=True, array_like=True):
    """A consumer group that retention waits for; in `topics` even before its first commit."""

    group: str
    topics: tuple[str, ...] = ()


class GuardsSet(_Entry, frozen=True):
    """For whom the retention of the running log waits; here so that a look into the folder can tell."""

    guards: tuple[Guard, ...]


Entry = (
    TopicCreated
    | TopicDeleted
    | TopicPurged
    | StartMoved
    | Compacted
    | OffsetsCommitted
    | OffsetsDeleted
    | GroupAdvanced
    | GroupDeleted
    | ProducerIdsReserved
    | TransactionChanged
    | TransactionForgotten
    | ClusterNamed
    | GuardsSet
)


class MetadataState:
    """What the entries add up to."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.guards: tuple[Guard, ...] = ()
        self.topics: dict[str, TopicCreated] = {}
        self.deleted: dict[tuple[str, int], TopicCreated] = {}
        self.starts: dict[TopicPartition, int] = {}
        self.compactions: dict[TopicPartition, Compacted] = {}
        self.offsets: dict[str, dict[TopicPartition, CommittedOffset]] = {}
        self.generations: dict[str, GroupAdvanced] = {}
        self.next_producer_id = 0
        self.next_incarnation = 1
        self.transactions: dict[str, Transaction] = {}

    def apply(self, entry: Entry) -> None:
        match entry:
            case TopicCreated():
                self.topics[entry.name] = entry
                self.next_incarnation = max(self.next_incarnation, entry.incarnation + 1)
            case TopicDeleted(name):
                self._delete_topic(name)
            case TopicPurged(name, incarnation):
                self.deleted.pop((name, incarnation), None)
            case StartMoved(topic, partition, offset):
                self.starts[(topic, partition)] = offset
            case Compacted(topic, partition):
                self.compactions[(topic, partition)] = entry
            case OffsetsCommitted(group, offsets):
                known = self.offsets.setdefault(group, {})
                known.update({(offset.topic, offset.partition): offset for offset in offsets})
            case OffsetsDeleted(group, partitions):
                for deleted in partitions:
                    self.offsets.get(group, {}).pop(deleted, None)
            case _:
                self._apply_coordinator(entry)

    def _apply_coordinator(self, entry: Entry) -> None:
        match entry:
            case GroupAdvanced(group):
                self.generations[group] = entry
            case GroupDeleted(group):
                self.offsets.pop(group, None)
                self.generations.pop(group, None)
            case ProducerIdsReserved(next_id):
                self.next_producer_id = max(self.next_producer_id, next_id)
            case TransactionChanged(transaction):
                self.transactions[transaction.transactional_id] = transaction
                self.next_producer_id = max(self.next_producer_id, transaction.producer_id + 1)
            case TransactionForgotten(transactional_id):
                self.transactions.pop(transactional_id, None)
            case ClusterNamed(cluster_id):
                self.cluster_id = cluster_id
            case GuardsSet(guards):
                self.guards = guards

    def _delete_topic(self, name: str) -> None:
        topic = self.topics.pop(name, None)
        if topic is None:
            return
        self.deleted[(name, topic.incarnation)] = topic
        self.starts = {key: offset for key, offset in self.starts.items() if key[0] != name}
        self.compactions = {key: entry for key, entry in self.compactions.items() if key[0] != name}
        for offsets in self.offsets.values():
            for key in [key for key in offsets if key[0] == name]:
                del offsets[key]

    def entries(self) -> Iterator[Entry]:
        """Entries that make this state from nothing."""
        yield ClusterNamed(self.cluster_id)
        yield GuardsSet(self.guards)
        yield ProducerIdsReserved(self.next_producer_id)
        for topic in self.deleted.values():
            yield topic
            yield TopicDeleted(topic.name)
        yield from self.topics.values()
        for (name, partition), offset in self.starts.items():
            yield StartMoved(name, partition, offset)
        yield from self.compactions.values()
        yield from self.generations.values()
        for group, offsets in self.offsets.items():
            yield OffsetsCommitted(group, list(offsets.values()))
        for transaction in self.transactions.values():
            yield TransactionChanged(transaction)


def apply_bodies(state: MetadataState, bodies: list[bytes], path: Path) -> None:
    """Apply what a journal holds. Raises LogFolderError for entries of another format."""
    decoder = msgspec.msgpack.Decoder(Entry)
    try:
        for body in bodies:
            state.apply(decoder.decode(body))
    except msgspec.DecodeError as error:
        raise LogFolderError(
            f"{path} was written by another version of the log ({error}); use that version"
        ) from error


class MetadataStore:
    """The state with its journal. Entries are durable after the commit cycle that follows `append`."""

    def __init__(self, path: Path, journal_bytes: int, commit: GroupCommit) -> None:
        self.state = MetadataState()
        self._commit = commit
        self._journal = Journal(path, journal_bytes, self._content)
        self._encoder = msgspec.msgpack.Encoder()

    def load(self) -> None:
        """Read the journal. Raises LogFolderError for entries of another format."""
        apply_bodies(self.state, self._journal.load(), self._journal.path)

    def append(self, entry: Entry) -> None:
        self.state.apply(entry)
        self._journal.append(self._encoder.encode(entry))
        self._commit.mark(self._journal)

    def close(self) -> None:
        self._journal.close()

    def _content(self) -> Iterator[bytes]:
        for entry in self.state.entries():
            yield self._encoder.encode(entry)
