"""What each view costs for an event: fold and flush, without RocksDB, on Zipf and on uniform batches.

    python -m benchmarks.views [--batches 40] [--events 10000] [--flush-every 4]

One user or item partition of eight: ids are an eighth of the site's. The rows go to dicts and the time of
that is not counted, so the numbers are the views' own share of an event's cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.batches import CardedEvents, EntityWrite, ItemBatch, UserBatch
from materializers.cards import ItemCards
from materializers.interner import Interner
from materializers.materializer import PartitionContext, Scope, View
from materializers.registry import default_registry
from schemas.default import default_schema
from schemas.model import Schema
from schemas.records.entities import EntityRecord
from schemas.weights import WEIGHT_SCALE

I64 = npt.NDArray[np.int64]

USERS = 125_000
ITEMS = 125_000
CREATORS = 10_000
PROFILES = 200
DIM = 64
START_MS = 1_763_600_000_000
EVENTS_A_SECOND = 18_750  # an eighth of 150,000
SIGNAL_SHARES = {
    "view": 0.62,
    "like": 0.12,
    "skip": 0.10,
    "share": 0.03,
    "completion": 0.05,
    "dwell_time": 0.08,
}


class DictRows:
    """Rows of a partition in dicts."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {}
        self.seconds = 0.0

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self.tables.get(table, {})
        return [rows.get(key) for key in keys]

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        rows = self.tables.get(table, {})
        chosen = [key for key in rows if key >= start and (end is None or key < end)]
        return iter([(key, rows[key]) for key in sorted(chosen)])


class DictWriter:
    """Writes straight into ``DictRows`` and counts what passes."""

    def __init__(self, rows: DictRows) -> None:
        self._rows = rows
        self.rows = 0
        self.bytes = 0

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.put_many(table, [key], [value])

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._rows.tables.setdefault(table, {}).update(zip(keys, values, strict=True))
        self.rows += len(keys)
        self.bytes += sum(map(len, keys)) + sum(map(len, values))

    def delete(self, table: str, key: bytes) -> None:
        self._rows.tables.get(table, {}).pop(key, None)
        self.rows += 1

    def feed(self, section: str, payload: bytes) -> None:
        self.bytes += len(payload)


@dataclass(frozen=True)
class Site:
    """The worker's dictionaries, filled."""

    schema: Schema
    items: Interner
    users: Interner
    profiles: Interner
    creators: Interner
    cards: ItemCards


def site(folder: Path) -> Site:
    """Every id interned and every item with a creator and an embedding."""
    schema = default_schema()
    slot = msgspec.structs.replace(schema.entities["item"].embeddings["content"], dim=DIM)
    item = msgspec.structs.replace(schema.entities["item"], embeddings={"content": slot})
    schema = msgspec.structs.replace(schema, entities={**schema.entities, "item": item})
    items, users, profiles, creators = (Interner() for _ in range(4))
    users.ids([f"user_{number}" for number in range(USERS)])
    profiles.ids([f'{{"locale":"{number}"}}' for number in range(PROFILES)])
    cards = ItemCards(folder, schema, items, creators)
    chance = np.random.default_rng(1)
    vectors = chance.normal(size=(ITEMS, DIM))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    owners = chance.integers(0, CREATORS, ITEMS)
    cards.apply(
        0,
        [
            EntityWrite(
                number,
                0,
                f"item_{number}",
                EntityRecord(
                    "item",
                    f"item_{number}",
                    creator=f"creator_{owners[number]}",
                    embeddings={"content": vectors[number].astype(np.float32)},
                ),
            )
            for number in range(ITEMS)
        ],
    )
    return Site(schema, items, users, profiles, creators, cards)


@dataclass
class Stream:
    """Batches of one partition in log order."""

    site: Site
    zipf: bool
    seed: int = 7

    def batches(self, count: int, events: int) -> Iterator[tuple[UserBatch, ItemBatch]]:
        chance = np.random.default_rng(self.seed)
        now_ms = START_MS
        for number in range(count):
            ts_ms = now_ms + np.arange(events) * 1000 // EVENTS_A_SECOND
            now_ms = int(ts_ms[-1])
            yield self._batch(chance, number * events, ts_ms)

    def _batch(self, chance: np.random.Generator, offset: int, ts_ms: I64) -> tuple[UserBatch, ItemBatch]:
        n = len(ts_ms)
        item = self._ids(chance, ITEMS, n)
        user = self._ids(chance, USERS, n)
        index = self.site.schema.signal_index
        kinds = [index[name] for name in SIGNAL_SHARES]
        signal = chance.choice(kinds, n, p=list(SIGNAL_SHARES.values())).astype(np.uint16)
        profile = (user % PROFILES + 1).astype(np.uint32)
        seconds = chance.integers(1, 60, n) * WEIGHT_SCALE
        weight = np.where(signal == index["dwell_time"], seconds, WEIGHT_SCALE)
        offsets = np.arange(offset, offset + n)
        card = self.site.cards.cards(item)
        creator = self.site.cards.creators(card)
        carded = CardedEvents(item, user, signal, weight, ts_ms, offsets, creator, card)
        source = np.zeros(n, dtype=np.uint16)
        return (
            UserBatch(item, user, signal, profile, weight, ts_ms, ts_ms, offsets, carded),
            ItemBatch(
                item, self.site.users.entity_ids[user], signal, profile, weight, ts_ms, ts_ms, source, offsets
            ),
        )

    def _ids(self, chance: np.random.Generator, size: int, n: int) -> npt.NDArray[np.uint32]:
        if not self.zipf:
            return chance.integers(1, size + 1, n).astype(np.uint32)
        # Rank by inverse of a bounded power law with exponent 1.
        ranks = np.exp(chance.random(n) * np.log(size)).astype(np.int64)
        ids: npt.NDArray[np.uint32] = (ranks * 48_271 % size + 1).astype(np.uint32)
        return ids


@dataclass(frozen=True)
class Cost:
    """Microseconds an event, and rows and bytes handed over for each thousand events."""

    fold_us: float
    flush_us: float
    rows_per_1000: float
    bytes_per_event: float


def measure(view: View, site: Site, zipf: bool, batches: int, events: int, flush_every: int) -> Cost:
    """Fold and flush one view; the first quarter of the batches only warms it up."""
    rows = DictRows()
    context = PartitionContext(
        0, 8, site.schema, site.items, site.users, site.profiles, site.creators, rows, site.cards
    )
    materializer = view.build(context)
    materializer.restore(rows)
    warm = batches // 4
    fold_s = flush_s = 0.0
    written = DictWriter(rows)
    for number, (user_batch, item_batch) in enumerate(Stream(site, zipf).batches(batches, events)):
        if number == warm:
            fold_s = flush_s = 0.0
            written = DictWriter(rows)
        batch = user_batch if view.scope == "user" else item_batch
        fold_s += _seconds(partial(materializer.on_batch, batch))
        if number % flush_every == flush_every - 1:
            flush_s += _seconds(partial(materializer.checkpoint, written))
    n = (batches - warm) * events
    return Cost(fold_s * 1e6 / n, flush_s * 1e6 / n, written.rows * 1000 / n, written.bytes / n)


def _seconds(action: Callable[[], None]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    """Print one table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batches", type=int, default=40)
    arguments.add_argument("--events", type=int, default=10_000)
    arguments.add_argument("--flush-every", type=int, default=4)
    chosen = arguments.parse_args()
    views = [view for scope in (Scope.USER, Scope.ITEM) for view in default_registry().of(scope)]
    with tempfile.TemporaryDirectory() as folder:
        made = site(Path(folder))
        print(f"{'view':16} {'ids':8} {'fold':>7} {'flush':>7} {'total':>7}  rows/1000  bytes/event")
        for zipf in (True, False):
            for view in views:
                cost = measure(view, made, zipf, chosen.batches, chosen.events, chosen.flush_every)
                print(_line(view.name, "zipf" if zipf else "uniform", cost))


def _line(view: str, ids: str, cost: Cost) -> str:
    times = f"{cost.fold_us:7.2f} {cost.flush_us:7.2f} {cost.fold_us + cost.flush_us:7.2f}"
    return f"{view:16} {ids:8} {times}  {cost.rows_per_1000:9.0f}  {cost.bytes_per_event:11.1f}"


if __name__ == "__main__":
    main()
