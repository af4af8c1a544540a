"""``verify`` on running workers: equal while they fold, and every wrecked row is named."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from materializers.materializer import Scope
from materializers.refold.claims import claimed, own_folder
from materializers.refold.verify import Verification, verify
from materializers.registry import default_registry
from materializers.tables.database import Database
from materializers.worker import tables_of
from schemas.loading import load_schema
from streams.topics import SIGNALS
from tests.crash.load import Load
from tests.crash.site import SCHEMA_FILE, Site
from tests.crash.traffic import Traffic

PARTITIONS = 4
WAIT_S = 60.0
NAME = "worker-0"
NOT_COMPARED = {"card_positions", "erasures", "open_erasures"}  # how the log was folded, not what it says


def _verify(site: Site, *views: str) -> Verification:
    schema = load_schema(SCHEMA_FILE)
    registry = default_registry()
    return verify(site.data, site.broker.bootstrap, schema, registry, PARTITIONS, only=views)


def _traffic(site: Site, events: int, events_per_s: float) -> Traffic:
    load = Load(5, anchor_ms=int(time.time() * 1000), users=60, items=40, creators=8)
    writes = chain(load.entities(), load.signals(events))
    return Traffic(site.broker.bootstrap, writes, events_per_s)


@pytest.mark.timeout(120)
def test_running_tables_equal_the_log_and_each_wrecked_row_is_named(site: Site) -> None:
    site.start_worker(NAME)
    site.wait_until_owned(PARTITIONS)
    traffic = _traffic(site, events=2_000, events_per_s=600.0)
    traffic.start()
    time.sleep(1.5)
    during = _verify(site)
    assert [result.differences for result in during.views if result.differing] == []
    assert during.is_complete
    traffic.finish()
    site.stop(NAME)
    after = _verify(site)
    assert after.is_equal
    assert after.events > 1_000
    wrecked = _wreck(site)
    assert wrecked >= {"global_cells", "cohort_blocks", "user_state", "preference", "relationships", "items"}
    again = _verify(site)
    assert {found.table for result in again.views for found in result.differences} == wrecked
    one = _verify(site, "user_state")
    assert [result.view for result in one.views] == ["user_state"]
    assert {found.table for found in one.views[0].differences} == wrecked & {"user_state", "user_items"}
    assert not list(site.data.glob("verify-*"))
    _cut(site, partition=0, before=1)
    cut = _verify(site)
    assert not cut.is_complete
    left_out = {result.view: result.not_compared or "" for result in cut.views if result.not_compared}
    assert left_out.keys() >= {"user_state", "global_signals"}
    assert left_out.keys().isdisjoint({"entities", "edges"})
    assert "tidal.signals partition 0 begins at offset 1" in left_out["user_state"]


def test_what_a_killed_process_left_is_cleared_away_and_what_runs_is_not(tmp_path: Path) -> None:
    left, running = tmp_path / "verify-1", tmp_path / "verify-2"
    for folder in (left, running):
        folder.mkdir()
        (folder / "rows").write_text("user_1")
    with claimed(running) as is_ours, own_folder(tmp_path, "verify") as mine:
        assert is_ours
        assert sorted(tmp_path.glob("verify-*")) == sorted([running, mine])
    assert list(tmp_path.glob("verify-*")) == [running]


def _cut(site: Site, partition: int, before: int) -> None:
    """What retention does."""
    admin = AdminClient({"bootstrap.servers": site.broker.bootstrap})
    for done in admin.delete_records([TopicPartition(SIGNALS, partition, before)]).values():
        done.result()


def _wreck(site: Site) -> set[str]:
    """Change one row of every table that has one; returns the tables."""
    tables = tables_of(default_registry())
    database = Database(
        site.data / "workers" / NAME / "db", [spec for specs in tables.values() for spec in specs]
    )
    wrecked = set()
    for name in [spec.name for scope in Scope for spec in tables[scope]]:
        for partition in range(PARTITIONS):
            row = next(iter(database.scan(name, partition)), None)
            if row is not None and name not in NOT_COMPARED:
                batch = database.batch()
                database.put_rows(batch, name, partition, {row[0]: _changed(row[1])})
                database.write(batch)
                wrecked.add(name)
                break
    database.close()
    return wrecked


def _changed(value: bytes) -> bytes:
    """One bit of the last byte; of an empty value one byte more."""
    return value[:-1] + bytes((value[-1] ^ 0x10,)) if value else b"\x01"
