"""A fetched batch is folded in slices of bounded weight, cut between records."""

from __future__ import annotations

from types import SimpleNamespace

from materializers.worker import _slices


def _records(*sizes: int | None) -> list[SimpleNamespace]:
    return [SimpleNamespace(value=None if size is None else b"x" * size) for size in sizes]


def test_a_light_batch_is_one_slice() -> None:
    records = _records(1, 2, None, 3)
    assert list(_slices(records)) == [records]


def test_slices_hold_all_records_in_order() -> None:
    records = _records(*[100_000] * 23)
    slices = list(_slices(records))
    assert [record for part in slices for record in part] == records
    assert all(sum(len(record.value) for record in part) <= 512 << 10 for part in slices)


def test_a_record_heavier_than_a_slice_is_a_slice() -> None:
    records = _records(10, 700_000, 10)
    assert [len(part) for part in _slices(records)] == [1, 1, 1]


def test_small_records_are_bounded_by_their_number() -> None:
    assert [len(part) for part in _slices(_records(*[1] * 20_000))] == [8_192, 8_192, 3_616]
