"""``rebuild`` on running workers: wrecked rows are right again, on the disk and in the changelog."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import pytest

from materializers.materializer import Scope
from materializers.refold.rebuild import RebuildError, SwappedPartition, rebuild, views_together
from materializers.refold.verify import Verification, verify
from materializers.registry import default_registry
from materializers.tables.database import Database
from materializers.worker import tables_of
from schemas.loading import load_schema
from streams.topics import SHARDS, changelog_topic
from tests.crash.load import Load
from tests.crash.site import SCHEMA_FILE, Site
from tests.crash.tables import logical, rows_in_changelog, rows_on_disk
from tests.crash.traffic import Traffic

PARTITIONS = 4
NAME = "worker-0"
SCHEMA = load_schema(SCHEMA_FILE)
REGISTRY = default_registry()
DICTIONARIES = frozenset({"item_ids", "item_profiles", "user_items"})


def _verify(site: Site, *views: str) -> Verification:
    return verify(site.data, site.broker.bootstrap, SCHEMA, REGISTRY, PARTITIONS, only=views)


def _rebuild(site: Site, view: str) -> list[SwappedPartition]:
    return rebuild(site.data, site.broker.bootstrap, SCHEMA, REGISTRY, PARTITIONS, view).partitions


def _load(events: int, seed: int = 5) -> Iterator[object]:
    load = Load(seed, anchor_ms=int(time.time() * 1000), users=60, items=40, creators=8)
    return chain(load.entities(), load.signals(events))


def _start(site: Site) -> None:
    """Start the worker, and wait until it has the partitions, not until its former self had them."""
    (site.data / "workers" / NAME / "status.json").unlink(missing_ok=True)
    site.start_worker(NAME)
    site.wait_until_owned(PARTITIONS)


def _fill(site: Site, events: int) -> None:
    """Publish, and let the worker apply everything and stop."""
    traffic = Traffic(site.broker.bootstrap, _load(events), 2_000.0)
    traffic.start()
    _start(site)
    traffic.finish()
    time.sleep(1.5)
    site.stop(NAME)


def _wreck(site: Site, view: str) -> None:
    """Lose every third row of the view's tables, and invent one in each partition."""
    tables = [spec.name for each in views_together(REGISTRY, view) for spec in each.tables]
    every = [spec for specs in tables_of(REGISTRY).values() for spec in specs]
    database = Database(site.data / "workers" / NAME / "db", every)
    for table in set(tables) - DICTIONARIES:
        for partition in range(PARTITIONS):
            rows = list(database.scan(table, partition))
            lost: dict[bytes, bytes | None] = {key: None for key, _ in rows[::3]}
            if rows:
                lost[rows[-1][0][:-1] + bytes((rows[-1][0][-1] ^ 1,))] = rows[-1][1]
            batch = database.batch()
            database.put_rows(batch, table, partition, lost)
            database.write(batch)
    database.close()


FULL = "TIDAL_CRASH_FULL" in os.environ
VIEWS = (
    ("global_signals", "relationships", "user_state", "preference", "entities")
    if FULL
    else ("global_signals",)
)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("view", VIEWS)
def test_a_wrecked_view_is_right_again_while_events_come_in(site: Site, view: str) -> None:
    _fill(site, 1_500)
    _wreck(site, view)
    wrecked = _verify(site)
    together = {each.name for each in views_together(REGISTRY, view)}
    differing = {result.view for result in wrecked.views if result.differing}
    assert view in differing
    assert differing <= together
    _start(site)
    site.start_queryd()
    site.wait_until_queryd_serves()
    traffic = Traffic(site.broker.bootstrap, _load(1_500, seed=6), 300.0)
    traffic.start()
    with _asking(site) as failures:
        swapped = _rebuild(site, view)
    assert failures == []
    assert [each.partition for each in swapped] == list(range(PARTITIONS))
    assert sum(each.rows for each in swapped) > 0
    assert sum(each.vanished for each in swapped) > 0
    during = _verify(site)
    assert [result.differences for result in during.views if result.differing] == []
    traffic.finish()
    time.sleep(1.0)
    _assert_queryd_counts_as_the_tables(site)
    site.stop(NAME)
    assert _verify(site).is_equal
    _assert_changelog_equals_disk(site)
    assert not (site.data / "rebuild" / "fold").exists()
    assert not list((site.data / "workers" / NAME / "rebuild").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_decides_stamps_is_rebuilt_and_later_stamps_are_right(site: Site) -> None:
    """Events that come in between are stamped by what the wrecked rows say: then cohorts are rebuilt, too."""
    _fill(site, 1_500)
    _wreck(site, "segments")
    assert {result.view for result in _verify(site).views if result.differing} == {"segments"}
    _start(site)
    assert sum(each.vanished for each in _rebuild(site, "segments")) > 0
    traffic = Traffic(site.broker.bootstrap, _load(1_500, seed=6), 1_000.0)
    traffic.start()
    traffic.finish()
    time.sleep(1.0)
    site.stop(NAME)
    assert _verify(site).is_equal
    _assert_changelog_equals_disk(site)


@contextmanager
def _asking(site: Site) -> Iterator[list[str]]:
    """Ask queryd all the time; yields what went wrong."""
    ended = threading.Event()
    failures: list[str] = []

    def ask() -> None:
        while not ended.wait(0.05):
            try:
                site.get("/v1/items/item_0/signals?signal=view")
            except (OSError, ValueError) as error:
                failures.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield failures
    finally:
        ended.set()
        thread.join()


def _assert_queryd_counts_as_the_tables(site: Site) -> None:
    """Its columns were read anew where rows were replaced."""
    cells = logical(rows_on_disk(site.data), SCHEMA).cells
    for (item, signal), (count, _, _, _) in list(cells.items())[:100]:
        ledger = site.get(f"/v1/items/{item}/signals?signal={signal}")
        assert ledger["all_time"]["count"] == count, (item, signal)


def _assert_changelog_equals_disk(site: Site) -> None:
    logged = rows_in_changelog(site.broker.bootstrap, [changelog_topic("tidal", shard) for shard in SHARDS])
    names = [spec.name for scope in Scope for spec in tables_of(REGISTRY)[scope]]
    for partition, stored in rows_on_disk(site.data).items():
        for name in names:
            assert stored.get(name, {}) == dict(logged[partition].get(name, {})), (partition, name)


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_a_worker_killed_in_the_swap_has_the_old_rows_or_the_new_ones(site: Site) -> None:
    _fill(site, 1_500)
    _wreck(site, "relationships")
    _start(site)
    failures: list[str] = []
    swapped: list[SwappedPartition] = []

    def run() -> None:
        try:
            rebuild(
                site.data,
                site.broker.bootstrap,
                SCHEMA,
                REGISTRY,
                PARTITIONS,
                "relationships",
                swapped=swapped.append,
            )
        except RebuildError as error:
            failures.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while not swapped and thread.is_alive():
        time.sleep(0.001)
    site.kill(NAME)
    _start(site)
    thread.join(60.0)
    assert not thread.is_alive()
    assert failures
    assert "run the rebuild again" in failures[0]
    differing = [found for result in _verify(site).views for found in result.differences]
    stays = swapped[0].partition
    assert [found for found in differing if found.partition == stays] == [], "what was swapped stays swapped"
    _rebuild(site, "relationships")
    assert _verify(site).is_equal
    site.stop(NAME)
    _assert_changelog_equals_disk(site)
