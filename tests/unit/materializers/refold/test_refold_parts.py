"""Parts of a refold that can be wrong alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from materializers.facts import EntityRef, Fact
from materializers.materializer import Scope, TableSpec, View
from materializers.refold.compare import differences
from materializers.refold.local_forwarder import ItemPartition
from materializers.refold.rebuild import views_together
from materializers.registry import MaterializerRegistry
from materializers.shards.events import Events
from tests.memory_rows import MemoryRows
from tests.shard_harness import RecordingView


def _events(offsets: list[int]) -> Events:
    numbers = np.array(offsets, dtype=np.int64)
    zeros = np.zeros(len(numbers), dtype=np.uint32)
    return Events(zeros, zeros, zeros.astype(np.uint16), numbers, numbers, numbers, numbers)


def test_entries_beyond_a_source_partitions_mark_wait_for_the_next_goal() -> None:
    view = RecordingView()
    partition = ItemPartition(MemoryRows(), lambda rows: [view], partitions=2)
    source = np.array([0, 0, 1, 1], dtype=np.uint16)
    partition.go_to({0: 5, 1: 0})
    partition.take(source, _events([5, 6, 0, 1]), np.zeros(4, dtype=np.uint64), np.zeros(4, dtype=np.uint32))
    assert partition.settle() == 2
    assert view.batches[0].source_offset.tolist() == [5, 0]
    assert partition.settle() == 0
    partition.go_to({0: 6, 1: 1})
    assert partition.settle() == 2
    assert view.batches[1].source_offset.tolist() == [6, 1]
    assert view.batches[1].source_partition.tolist() == [0, 1]


def test_a_source_partition_without_a_mark_contributes_nothing() -> None:
    view = RecordingView()
    partition = ItemPartition(MemoryRows(), lambda rows: [view], partitions=2)
    user = np.zeros(1, dtype=np.uint64)
    partition.take(np.array([1], dtype=np.uint16), _events([0]), user, np.zeros(1, dtype=np.uint32))
    assert partition.settle() == 0
    assert view.batches == []


def test_every_kind_of_difference_is_named_in_words() -> None:
    stored = [
        Fact("t", (EntityRef(1), "like"), 3),
        Fact("t", ("only stored",), 1),
        Fact("t", ("equal",), 1),
    ]
    expected = [
        Fact("t", (EntityRef(1), "like"), 4),
        Fact("t", ("equal",), 1),
        Fact("u", ("only expected",), (), np.array([0.5]), 1e-9),
    ]
    found = list(differences("v", 2, stored, expected, {1: "ann"}.get))
    assert [(each.table, each.key, each.stored, each.expected) for each in found] == [
        ("t", "ann like", "3", "4"),
        ("t", "only stored", "1", None),
        ("u", "only expected", None, "[0.5]"),
    ]
    assert {(each.view, each.partition) for each in found} == {("v", 2)}


def test_views_that_share_tables_are_rebuilt_together() -> None:
    def build(context: Any) -> Any:
        raise AssertionError("nothing is built")

    def view(name: str, *tables: str) -> View:
        return View(name, Scope.ITEM, tuple(TableSpec(table, "k") for table in tables), build)

    registry = MaterializerRegistry(
        [view("a", "names", "a"), view("b", "names", "words"), view("c", "words"), view("d", "d")]
    )
    assert [each.name for each in views_together(registry, "a")] == ["a", "b", "c"]
    assert [each.name for each in views_together(registry, "d")] == ["d"]
