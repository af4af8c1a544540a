"""Entity records in every form and partition: what the real shards fold is what the log says."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from materializers.registry import default_registry
from materializers.rows.entities import EDGES, TABLE_OF_KIND, decode_edge, decode_entity_row
from materializers.tables.meta import ShardMeta
from schemas.loading import load_schema
from schemas.records.edge_key import edge_key
from schemas.records.entities import decode_entity
from streams.partitioner import partition_for
from streams.topics import ENTITY_TOPICS, RELATIONSHIPS
from tests.memory_rows import MemoryRows
from tests.oracle.entities import fold_entities
from tests.oracle.records import LogRecord
from tests.shard_harness import NOW_MS, PARTITIONS, Record, ShardSite, flushed

SCHEMA = load_schema(
    {
        "name": "entities",
        "entities": {
            "item": {"fields": {"title": "text"}, "embeddings": {"look": {"dim": 2, "metric": "dot"}}},
            "user": {"fields": {"locale": "keyword"}, "dimensions": {"locale": {"field": "locale"}}},
            "creator": {"fields": {"name": "text"}},
        },
        "relationships": {"follows": {"explicit": True}},
    }
)
NAMES = {"item": ["film", "song"], "user": ["ann", "bob", "cleo"], "creator": ["zoe"]}
TOPICS = [*ENTITY_TOPICS.values(), RELATIONSHIPS]


@dataclass(frozen=True)
class Write:
    """``form`` of the key and the value; ``number`` makes values differ; None deletes."""

    kind: str
    name: int
    form: str
    partition: int
    number: int | None


@dataclass(frozen=True)
class EdgeChange:
    source: int
    target: int
    form: str
    partition: int
    exists: bool


@dataclass(frozen=True)
class Turn:
    what: str


FORMS = st.sampled_from(["plain", "connect", "debezium", "stray"])
WRITES = st.builds(
    Write,
    st.sampled_from(["item", "user", "user", "creator"]),
    st.integers(0, 2),
    FORMS,
    st.integers(0, PARTITIONS - 1),
    st.one_of(st.none(), st.integers(0, 9)),
)
EDGES_CHANGED = st.builds(
    EdgeChange,
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from(["plain", "stray"]),
    st.integers(0, PARTITIONS - 1),
    st.booleans(),
)
STEPS = st.lists(
    st.one_of(WRITES, WRITES, EDGES_CHANGED, st.builds(Turn, st.sampled_from(["fold", "flush", "crash"]))),
    max_size=30,
)


@dataclass
class Cluster:
    """The log of the entity topics, and one entity shard for each partition."""

    folder: Path
    log: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    rows: list[MemoryRows] = field(default_factory=lambda: [MemoryRows() for _ in range(PARTITIONS)])
    metas: list[ShardMeta] = field(default_factory=lambda: [ShardMeta() for _ in range(PARTITIONS)])
    lives: int = 0

    def __post_init__(self) -> None:
        self.log = {(topic, number): [] for topic in TOPICS for number in range(PARTITIONS)}
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.site = ShardSite(self.folder / str(self.lives), SCHEMA, default_registry())
        self.shards = [
            self.site.entity_shard(number, self.rows[number], self.metas[number])
            for number in range(PARTITIONS)
        ]
        self.delivered = 0

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, **more: Any) -> None:
        records = self.log[topic, partition]
        offset = records[-1].offset + 1 if records else 0
        records.append(Record(offset, value, key, NOW_MS, topic=topic, partition=partition, **more))

    def fold(self) -> None:
        """Everything in the log, and what that causes, until nothing more comes."""
        while True:
            folded = 0
            for (topic, number), records in self.log.items():
                shard = self.shards[number]
                new = [record for record in records if record.offset > shard.applied(topic)]
                if new:
                    shard.fold(topic, new)
                    folded += len(new)
            self.deliver()
            if not folded:
                return

    def deliver(self) -> None:
        for sent in self.site.forwarder.sent[self.delivered :]:
            if sent.topic in TOPICS:
                self.append(sent.topic, sent.partition, sent.key, sent.value, headers=sent.headers)
        self.delivered = len(self.site.forwarder.sent)

    def turn(self, what: str) -> None:
        if what != "crash":
            self.fold()
        if what == "flush":
            self.metas = [flushed(shard, rows) for shard, rows in zip(self.shards, self.rows, strict=True)]
        if what == "crash":
            self.start()

    def records(self) -> list[LogRecord]:
        return [
            LogRecord(topic, number, each.offset, each.timestamp, each.key, each.value, dict(each.headers))
            for (topic, number), records in self.log.items()
            for each in records
        ]


def _append(cluster: Cluster, step: Write | EdgeChange) -> None:
    if isinstance(step, EdgeChange):
        names = ("follows", NAMES["user"][step.source], NAMES["user"][step.target])
        key, value = edge_key(*names), b"{}" if step.exists else None
        partition = partition_for(names[1].encode(), PARTITIONS)
        if step.form == "stray":
            key, partition = json.dumps(names).encode(), step.partition
        cluster.append(RELATIONSHIPS, partition, key, value)
        return
    names = NAMES[step.kind]
    name = names[step.name % len(names)]
    row = None if step.number is None else {"id": name, **_fields(step.kind, step.number)}
    key, value = _written(step.form, name, row)
    home = partition_for(name.encode(), PARTITIONS)
    cluster.append(ENTITY_TOPICS[step.kind], home if step.form == "plain" else step.partition, key, value)


def _fields(kind: str, number: int) -> dict[str, Any]:
    if kind == "item":
        return {"title": f"t{number}", "creator": f"maker{number % 2}", "embeddings": {"look": [number, 1]}}
    return {"locale": ["US", "DE"][number % 2]} if kind == "user" else {"name": f"n{number}"}


def _written(form: str, name: str, row: Any) -> tuple[bytes, bytes | None]:
    def encoded(value: Any) -> bytes:
        return json.dumps(value).encode()

    if form == "connect":
        value = {"schema": {"type": "struct"}, "payload": row}
        return encoded({"schema": {"type": "string"}, "payload": name}), encoded(value)
    if form == "debezium":
        change = {"before": None, "after": row, "op": "u" if row else "d", "source": {}, "ts_ms": 1}
        return encoded({"id": name}), encoded(change)
    return name.encode(), None if row is None else encoded(row)


def _stored(cluster: Cluster) -> tuple[dict[str, dict[str, Any]], set[tuple[str, str]]]:
    entities: dict[str, dict[str, Any]] = {kind: {} for kind in TABLE_OF_KIND}
    edges: set[tuple[str, str]] = set()
    for number, rows in enumerate(cluster.rows):
        for kind, table in TABLE_OF_KIND.items():
            for _, value in rows.scan(table):
                row = decode_entity_row(value)
                assert partition_for(row.id.encode(), PARTITIONS) == number
                if row.raw:
                    entities[kind][row.id] = _content(decode_entity(kind, row.id.encode(), row.raw, SCHEMA))
        edges.update((edge.source, edge.target) for edge in map(decode_edge, dict(rows.scan(EDGES)).values()))
    return entities, edges


def _content(record: Any) -> Any:
    vectors = {slot: vector.tolist() for slot, vector in record.embeddings.items()}
    return record.id, record.status, record.creator, record.fields, vectors


BACK = [
    Write("user", 0, "debezium", 1, 1),
    EdgeChange(0, 1, "stray", 2, True),
    EdgeChange(1, 0, "plain", 0, True),
]


@given(STEPS)
@example([*BACK, Turn("flush"), Write("user", 0, "plain", 0, None), Turn("flush"), Turn("crash")])
@example([*BACK, Turn("fold"), Write("user", 0, "connect", 3, None), Write("user", 0, "connect", 3, 4)])
@example([Write("user", 0, "plain", 0, None), *(Write("user", name, "connect", 1, 0) for name in (1, 0))])
@example([Write("item", 0, "stray", number, number) for number in range(PARTITIONS)])
@settings(max_examples=25)
def test_tables_hold_what_the_log_says(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        for step in steps:
            if isinstance(step, Turn):
                cluster.turn(step.what)
            else:
                _append(cluster, step)
        cluster.turn("flush")
        entities, edges = _stored(cluster)
        clean = fold_entities(cluster.records(), SCHEMA, PARTITIONS)
        assert entities == {
            kind: {name: _content(record) for name, record in clean.records[kind].items()}
            for kind in TABLE_OF_KIND
        }
        assert edges == {(source, target) for _, source, target in clean.edges}
        again = Cluster(Path(folder) / "again")
        again.log = _compacted(cluster.log)
        again.turn("flush")
        found, found_edges = _stored(again)
        for kind, names in NAMES.items():
            for number, name in enumerate(names):
                if len(_places(steps, kind, number)) <= 1:
                    assert found[kind].get(name) == entities[kind].get(name)
        if not any(map(_moves_in_time, steps)):
            assert found_edges == edges


def _moves_in_time(step: Any) -> bool:
    """An edge that is copied home, or a connector's delete of a user, which stays in the log as an envelope:
    read anew from the start, the one comes late and the other takes with it edges written after it.
    """
    if isinstance(step, EdgeChange):
        return step.form == "stray"
    return isinstance(step, Write) and step.kind == "user" and step.form != "plain" and step.number is None


def _places(steps: list[Any], kind: str, number: int) -> set[Any]:
    """Where an entity was written. Two places have no order between them in a log that is read from its
    start after compaction; one has, and whoever was deleted there must not come back.
    """
    mine = [
        step
        for step in steps
        if isinstance(step, Write) and step.kind == kind and step.name % len(NAMES[kind]) == number
    ]
    return {(step.form, None if step.form == "plain" else step.partition) for step in mine}


def _compacted(log: dict[tuple[str, int], list[Record]]) -> dict[tuple[str, int], list[Record]]:
    """The newest record of each key, where it stands, and no deletes: what compaction leaves at last."""
    newest = {(place, each.key): each.offset for place, records in log.items() for each in records}
    return {
        place: [each for each in records if each.value is not None and each.offset == newest[place, each.key]]
        for place, records in log.items()
    }
