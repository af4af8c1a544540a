"""How long a page takes: the reference queries over a synthetic site, while events keep coming.

    python -m benchmarks.query [--items 200000] [--events 2000000] [--dim 64] [--seconds 10]

Rows are made on the fly and go through the engine's own loading, so everything is real but RocksDB (whose
reads of one user's rows are served from memory here) and HTTP. Between any two queries the engine applies a
flush of ``--rate`` × 20 ms events, as a worker would have written it. The figure to look at is the ratio to
the plain way of the same run: summing the cohort's cells of 24 hours anew for each query.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from pyroaring import BitMap

from benchmarks.results import Result, parser, report
from materializers.materializer import Scope
from materializers.rows import cells as cell_rows
from materializers.rows.blocks import (
    BlockColumns,
    BlockDeltas,
    Resolution,
    block_key,
    encode_block,
    encode_deltas,
)
from materializers.rows.entities import StoredEntity, encode_entity, entity_key
from materializers.rows.ordinals import encode_ordinals, ordinal_keys
from materializers.rows.preference import TABLE as PREFERENCE
from materializers.rows.preference import preference_key, preference_row
from materializers.rows.relationships import ROW as EDGE_ROW
from materializers.rows.relationships import TABLE as RELATIONSHIPS
from materializers.rows.relationships import relationship_key
from materializers.rows.user_state import TABLE as USER_STATE
from materializers.rows.user_state import encode_container, state_key
from materializers.tables.feed import Change, Section
from queryd.engine import Engine
from queryd.hot.bucket_reads import bucket_range
from queryd.language.parse import parse_query
from queryd.plan.planner import make_plan
from schemas.ids import entity_id, entity_ids
from schemas.loading import load_schema
from schemas.model import Schema
from schemas.predicate import check, parse_predicate
from schemas.settings import Settings, SiteSettings, TopicSettings
from schemas.weights import WEIGHT_SCALE

USERS = 50
QUERIES_MIN = 100
SEEN = 2_000
EDGES = 200
CREATORS = 5_000
HOURS = 24
COHORT = "locale:US, age:18-24"
# Titles of six words, the first of the list the most frequent: about 2 % have "piano", 2 % "tutorial".
WORDS = [
    *(f"word{number}" for number in range(400)),
    "piano",
    "tutorial",
    *(f"rare{n}" for n in range(1_600)),
]
QUERIES = {
    "trending": "RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 25",
    "cohort trending": f"RETRIEVE items USING PROFILE trending COHORT {COHORT} WINDOW 24h LIMIT 25",
    "search in trend": (
        f'SEARCH items QUERY "piano tutorial" WITHIN TRENDING COHORT {COHORT} WINDOW 24h LIMIT 20'
    ),
    "composed": (
        "RETRIEVE items FOR USER @user_{user} USING PROFILE for_you FILTER unseen WITHIN TRENDING "
        f"COHORT {COHORT} DIVERSITY max_per_creator:2 LIMIT 50"
    ),
    "for_you": "RETRIEVE items FOR USER @user_{user} USING PROFILE for_you FILTER unseen LIMIT 50",
}


def site_schema(dim: int) -> Schema:
    """The default site with vectors of ``dim``."""
    fields = {"title": "text", "tags": "tags", "category": "keyword", "created_at": "time"}
    embeddings = {"content": {"dim": dim, "metric": "cosine"}}
    return load_schema(
        {"name": "benchmark", "entities": {"item": {"fields": fields, "embeddings": embeddings}}}
    )


class SyntheticTables:
    """One partition whose rows are made when they are asked for."""

    def __init__(self, schema: Schema, items: int, events: int, dim: int, rate: int) -> None:
        self._schema = schema
        self._rng = np.random.default_rng(20)
        self._items = items
        self._events = events
        self._dim = dim
        self._flush_events = max(1, rate // 50)
        self.now_ms = int(time.time() * 1000)
        self._popular = (1.0 / np.arange(1, items + 1) ** 0.7).cumsum()
        self._popular /= self._popular[-1]
        self._order = self._rng.permutation(items).astype(np.uint32)
        self._profiles = self._profile_strings()
        self._centres = self._rng.normal(size=(32, dim)).astype(np.float32)
        self._users = self._user_rows()
        self._user_keys = {table: sorted(rows) for table, rows in self._users.items()}
        self._sequence = 0

    def catch_up(self) -> None:
        """Nothing to do: rows are made when read."""

    def partitions(self, scope: Scope) -> Sequence[int]:
        return [0]

    def get_many(self, table: str, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        if table == "items":
            return [self._item_of_key(key) for _, key in keys]
        return [self._users.get(table, {}).get(key) for _, key in keys]

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        makers: dict[str, Callable[[], Iterator[tuple[bytes, bytes]]]] = {
            "items": self._item_rows,
            "item_ids": lambda: _ordinal_rows([f"item_{number}" for number in range(self._items)]),
            "user_items": lambda: _ordinal_rows([f"item_{number}" for number in range(self._items)]),
            "item_profiles": lambda: _ordinal_rows(self._profiles),
            "global_cells": self._cell_rows,
            "global_blocks": lambda: self._block_rows(profiles=False),
            "cohort_blocks": lambda: self._block_rows(profiles=True),
        }
        if table in makers and not start:
            yield from makers[table]()
            return
        rows, keys = self._users.get(table, {}), self._user_keys.get(table, [])
        for place in range(bisect_left(keys, start), len(keys) if end is None else bisect_left(keys, end)):
            yield keys[place], rows[keys[place]]

    def changes(self) -> Sequence[Change]:
        """One flush of new events each time it is asked."""
        self._sequence += 1
        now_ms = int(time.time() * 1000)
        items, profiles, signals = self._drawn(self._flush_events)
        ones = np.ones(len(items), dtype=np.int64)
        minute = np.full(len(items), now_ms // 60_000, dtype=np.uint32)
        resolution = np.zeros(len(items), dtype=np.uint8)
        sections = []
        for name, column in (("global_blocks", None), ("cohort_blocks", profiles)):
            cells = BlockColumns(items, signals, column, ones, ones * WEIGHT_SCALE)
            sections.append(Section(name, 0, encode_deltas(BlockDeltas(resolution, minute, cells))))
        return [Change(self._sequence, now_ms, sections)]

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        return {}

    def forwarded(self, partition: int) -> Mapping[int, int]:
        return {}

    def sent_away(self, partition: int) -> Mapping[int, int]:
        return {}

    def rerouted(self, partition: int) -> Mapping[int, int]:
        return {}

    def status(self) -> Mapping[str, Any]:
        return {}

    def _profile_strings(self) -> list[str]:
        ages = ["13-17", "18-24", "25-34", "35-44", "45-54", "55+"]
        places = ["US", "DE", "FR", "GB", "BR", "IN", "JP", "MX", "IT", "ES"]
        tongues = ["en", "de", "fr", "es", "pt"]
        return [
            json.dumps(
                {"age": age, "language": tongue, "locale": place}, sort_keys=True, separators=(",", ":")
            )
            for age in ages
            for place in places
            for tongue in tongues
        ]

    def _drawn(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Events: item ordinals (Zipf), profile ordinals, signal codes (mostly the first)."""
        items = self._order[np.searchsorted(self._popular, self._rng.random(count))]
        profiles = self._rng.integers(0, len(self._profiles), count).astype(np.uint32)
        codes = np.array([signal.code for signal in self._schema.signal_list[:3]], dtype=np.uint32)
        return items, profiles, codes[self._rng.choice(3, count, p=[0.8, 0.1, 0.1])]

    def _item_row(self, number: int) -> bytes:
        rng = np.random.default_rng(number)
        vector = self._centres[number % 32] + rng.normal(size=self._dim).astype(np.float32) * 0.6
        record = {
            "id": f"item_{number}",
            "creator": f"creator_{number % CREATORS}",
            "title": " ".join(WORDS[place] for place in (len(WORDS) * rng.random(6) ** 2).astype(int)),
            "category": f"category_{number % 20}",
            "created_at": self.now_ms - number * 30_000,
            "embeddings": {"content": [round(float(value), 4) for value in vector]},
        }
        raw = msgspec.json.encode(record)
        return encode_entity(StoredEntity(f"item_{number}", "active", number, self.now_ms, raw))

    def _item_rows(self) -> Iterator[tuple[bytes, bytes]]:
        self._number_of = {}
        for number in range(self._items):
            key = entity_key(f"item_{number}")
            self._number_of[key] = number
            yield key, self._item_row(number)

    def _item_of_key(self, key: bytes) -> bytes | None:
        number = self._number_of.get(key)
        return None if number is None else self._item_row(number)

    def _cell_rows(self) -> Iterator[tuple[bytes, bytes]]:
        keys = entity_ids([f"item_{number}" for number in range(self._items)])
        row = cell_rows.cell_row(3)
        for signal in self._schema.signal_list[:3]:
            counts = self._rng.integers(1, 500, self._items)
            columns = {
                "accumulators": np.full(self._items, 3),
                "ref_ms": np.full(self._items, self.now_ms - 60_000),
                "count": counts,
                "sum": counts * WEIGHT_SCALE,
                "acc": self._rng.random((self._items, 3)) * 100,
            }
            codes = np.full(self._items, signal.code, dtype=np.uint32)
            yield from zip(cell_rows.cell_keys(keys, codes), row.encode(columns), strict=True)

    def _block_rows(self, *, profiles: bool) -> Iterator[tuple[bytes, bytes]]:
        hour = self.now_ms // 3_600_000
        size = self._events // HOURS
        for back in range(HOURS - 1, -1, -1):
            items, drawn, signals = self._drawn(size)
            for seq, start in enumerate(range(0, size, 8_192)):
                rows = slice(start, start + 8_192)
                ones = np.ones(len(items[rows]), dtype=np.int64)
                profile = drawn[rows] if profiles else None
                block = BlockColumns(items[rows], signals[rows], profile, ones, ones * WEIGHT_SCALE)
                yield block_key(Resolution.HOUR, (hour - back) * 60, seq), encode_block(block)

    def _user_rows(self) -> dict[str, dict[bytes, bytes]]:
        rows: dict[str, dict[bytes, bytes]] = {USER_STATE: {}, PREFERENCE: {}, RELATIONSHIPS: {}}
        seen, edge = self._schema.states["seen"].code, self._schema.relationships["interaction_weight"].code
        for number in range(USERS):
            user = entity_id(f"user_{number}")
            ordinals = np.unique(self._rng.integers(0, self._items, SEEN).astype(np.uint32))
            for chunk in np.unique(ordinals >> 16).tolist():
                held = BitMap(ordinals[ordinals >> 16 == chunk])
                rows[USER_STATE][state_key(user, seen, chunk)] = encode_container(held)
            vector = (self._centres[number % 32] / np.linalg.norm(self._centres[number % 32]))[None, :]
            columns = {
                "dim": np.array([self._dim]),
                "updates": np.array([9]),
                "long": vector,
                "short": vector,
            }
            [rows[PREFERENCE][preference_key(user, "content")]] = preference_row(self._dim).encode(columns)
            for creator in self._rng.integers(0, CREATORS, EDGES).tolist():
                target = f"creator_{creator}"
                weight = {"updated_ms": np.array([self.now_ms]), "weight": np.array([0.5])}
                [value] = EDGE_ROW.encode(weight, [target.encode()])
                rows[RELATIONSHIPS][relationship_key(user, edge, entity_id(target))] = value
        return rows


def _ordinal_rows(strings: list[str]) -> Iterator[tuple[bytes, bytes]]:
    yield from zip(ordinal_keys(0, len(strings)), encode_ordinals(strings), strict=True)


async def measure(engine: Engine, query: str, seconds: float) -> dict[str, Any]:
    """Latencies of one query in ms, JSON encoding included, each after another flush of the feed.

    ``cpu`` is the thread's own time: what the query costs when nobody else wants the processor.
    """
    wall: list[float] = []
    cpu: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(wall) < QUERIES_MIN:
        await engine.feeder.step()
        text = query.replace("{user}", str(len(wall) % USERS))
        began, began_cpu = time.perf_counter(), time.thread_time()
        msgspec.json.encode(await engine.query(text))
        cpu.append((time.thread_time() - began_cpu) * 1000)
        wall.append((time.perf_counter() - began) * 1000)
    return {
        "first ms": wall[0],
        "p50 ms": float(np.percentile(wall[1:], 50)),
        "p99 ms": float(np.percentile(wall[1:], 99)),
        "cpu p50 ms": float(np.percentile(cpu[1:], 50)),
        "cpu p99 ms": float(np.percentile(cpu[1:], 99)),
        "queries": len(wall),
    }


def summed_anew_ms(engine: Engine, schema: Schema) -> float:
    """CPU of summing the cohort's cells of 24 hours anew, as without standing sums; median of 20."""
    cohort = check(parse_predicate(COHORT), schema, "cohort")
    mask = engine.hot.profiles.mask(cohort)
    wanted = bucket_range("24h", int(time.time() * 1000))
    taken = []
    for turn in range(20):
        began = time.thread_time()
        engine.hot.by_profile.standing(0, wanted, mask, ("anew", turn), "24h")
        taken.append((time.thread_time() - began) * 1000)
    return float(np.median(taken))


def parse_ms(schema: Schema) -> float:
    """CPU of parsing and planning the composed query without the cache; median."""
    taken = []
    for _ in range(100):
        began = time.thread_time()
        make_plan(parse_query(QUERIES["composed"]), schema)
        taken.append((time.thread_time() - began) * 1000)
    return float(np.median(taken))


async def run(options: argparse.Namespace) -> Result:
    """Load, ask."""
    schema = site_schema(options.dim)
    tables = SyntheticTables(schema, options.items, options.events, options.dim, options.rate)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(site=SiteSettings(data_dir=folder), topics=TopicSettings(partitions=1))
        engine = Engine(settings, schema, tables)
        began = time.thread_time()
        await engine.start(follow=False)
        loaded_s = time.thread_time() - began
        await engine.index_everything()
        anew = summed_anew_ms(engine, schema)
        rows = []
        for name, text in QUERIES.items():
            found = await measure(engine, text, options.seconds)
            rows.append({"query": name, **found, "cpu p50 / summing anew": found["cpu p50 ms"] / anew})
            if options.stages:
                explained = await engine.query("EXPLAIN ANALYZE " + text.replace("{user}", "1"))
                sys.stdout.write(msgspec.json.format(msgspec.json.encode(explained.explain)).decode())
        notes = [
            f"{options.items:,} items of {options.dim} dimensions, {options.events:,} events in 24 h, "
            f"{len(engine.hot.profiles)} profiles; a flush of {options.rate / 50:.0f} events between queries",
            f"cells by profile {engine.hot.by_profile.cells:,}, of everybody {engine.hot.everybody.cells:,}",
            f"loading took {loaded_s:.1f} s of CPU, without the time to make the rows' bytes it is less",
            f"the cohort's 24 h summed anew: {anew:.2f} ms",
            f"parse and plan of the composed query, not cached: {parse_ms(schema):.2f} ms",
        ]
        await engine.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    notes.append(f"peak memory {peak:,.0f} MiB, the synthetic tables included")
    command = f"python -m benchmarks.query --items {options.items} --events {options.events}"
    return Result("query", command, rows, notes)


def main() -> None:
    """Command line."""
    made = parser("query", __doc__)
    made.add_argument("--items", type=int, default=200_000)
    made.add_argument("--events", type=int, default=2_000_000)
    made.add_argument("--dim", type=int, default=64)
    made.add_argument("--rate", type=int, default=5_000, help="events a second that keep coming")
    made.add_argument("--seconds", type=float, default=5.0, help="for each query")
    made.add_argument("--stages", action="store_true", help="print what each stage took")
    options = made.parse_args()
    if options.short:
        options.items, options.events, options.seconds = 20_000, 200_000, 0.5
    report(asyncio.run(run(options)), options.json)


if __name__ == "__main__":
    main()
