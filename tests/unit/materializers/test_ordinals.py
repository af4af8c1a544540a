"""Ordinals are dealt once, written once, and come back."""

from __future__ import annotations

from materializers.interner import Interner
from materializers.ordinals import Ordinals, shared_ordinals
from materializers.rows.ordinals import decode_new_ordinals
from tests.memory_rows import MemoryRows, MemoryWriter


def flush(ordinals: Ordinals, rows: MemoryRows) -> int:
    writer = MemoryWriter(rows)
    ordinals.checkpoint(writer)
    written = len(writer.changes)
    writer.commit()
    return written


def test_dealt_in_order_of_first_sight() -> None:
    strings = Interner()
    wids = strings.ids(["x", "c", "a", "b"])
    ordinals = Ordinals("t", strings)
    assert ordinals.of(wids[[1, 2, 1, 3]]).tolist() == [0, 1, 0, 2]
    assert ordinals.of(wids[[0, 3]]).tolist() == [3, 2]
    assert strings.strings(ordinals.wids(ordinals.of(wids))) == ["x", "c", "a", "b"]


def test_never_dealt_again_after_a_restart() -> None:
    rows, strings = MemoryRows(), Interner()
    ordinals = Ordinals("t", strings)
    ordinals.of(strings.ids(["c", "a"]))
    assert flush(ordinals, rows) == 2
    assert flush(ordinals, rows) == 0
    other = Interner()
    other.ids(["z", "a"])
    again = Ordinals("t", other)
    again.restore(rows)
    assert again.of(other.ids(["a", "c", "new"])).tolist() == [1, 0, 2]
    assert again.dealt_since_restore(again.of(other.ids(["a", "new"]))).tolist() == [False, True]
    assert flush(again, rows) == 1
    assert [decode_new_ordinals(payload) for _, payload in rows.fed] == [(0, ["c", "a"]), (2, ["new"])]


def test_what_was_not_flushed_is_dealt_anew() -> None:
    rows, strings = MemoryRows(), Interner()
    ordinals = Ordinals("t", strings)
    ordinals.of(strings.ids(["a"]))
    flush(ordinals, rows)
    ordinals.of(strings.ids(["lost"]))
    ordinals.restore(rows)
    assert len(ordinals) == 1
    assert ordinals.of(strings.ids(["other", "lost"])).tolist() == [1, 2]


def test_thousands_of_strings() -> None:
    rows, strings = MemoryRows(), Interner()
    ordinals = Ordinals("t", strings)
    names = [f"n{number}" for number in range(5000)]
    for start in range(0, 5000, 700):
        ordinals.of(strings.ids(names[start : start + 700]))
        flush(ordinals, rows)
    again = Ordinals("t", Interner())
    again.restore(rows)
    assert again.of(again._strings.ids(names)).tolist() == list(range(5000))


def test_views_of_one_partition_share_a_dictionary() -> None:
    rows, strings = MemoryRows(), Interner()
    assert shared_ordinals("t", rows, strings) is shared_ordinals("t", rows, strings)
    assert shared_ordinals("t", rows, strings) is not shared_ordinals("u", rows, strings)
    assert shared_ordinals("t", rows, strings) is not shared_ordinals("t", MemoryRows(), strings)
