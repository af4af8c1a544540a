"""What goes into a checkpoint, and what comes back when it fails."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from materializers.tables.meta import Ownership
from materializers.tables.partition import PartitionState
from materializers.tables.pending import Letter


def _state() -> PartitionState:
    ownership = Ownership(lineage="c1", generation=4)
    return PartitionState(partition=2, shards={}, writer=cast(Any, None), ownership=ownership)


def test_a_checkpoint_takes_all_that_is_flushed_and_nothing_that_is_only_folded() -> None:
    state = _state()
    state.folded_batches.append("first")
    state.merge_rows({"t": {b"k": b"1"}})
    state.mark_flushed(7)
    state.folded_batches.append("second")
    checkpoint, batches = state.begin_checkpoint()
    assert checkpoint.rows == {"t": {b"k": b"1"}}
    assert batches == ["first"]
    assert state.folded_batches == ["second"]
    assert checkpoint.ownership.attempt_flush == 7
    assert not state.needs_checkpoint()


def test_the_attempt_is_on_record_before_and_the_lineage_after_the_commit() -> None:
    state = _state()
    checkpoint, _ = state.begin_checkpoint()
    attempt = state.ownership.attempt
    assert state.ownership.lineage == "c1"
    assert checkpoint.ownership.lineage == attempt != "c1"
    state.checkpoint_committed(checkpoint)
    assert state.ownership.lineage == attempt


def test_a_claim_raises_the_generation_only_in_what_is_committed() -> None:
    state = _state()
    checkpoint, _ = state.begin_checkpoint(claim=True)
    assert checkpoint.ownership.generation == 5
    assert state.ownership.generation == 4
    state.checkpoint_committed(checkpoint)
    assert state.ownership.generation == 5


def test_an_aborted_checkpoint_is_merged_back_below_newer_rows() -> None:
    state = _state()
    state.merge_rows({"t": {b"a": b"old", b"b": b"old"}})
    state.letters.append(Letter(None, b"1", []))
    state.folded_batches.append("first")
    state.mark_flushed(1)
    checkpoint, batches = state.begin_checkpoint()
    state.merge_rows({"t": {b"b": b"new"}, "u": {b"c": None}})
    state.folded_batches.append("second")
    state.mark_flushed(2)
    state.checkpoint_aborted(checkpoint, batches)
    assert state.rows == {"t": {b"a": b"old", b"b": b"new"}, "u": {b"c": None}}
    assert state.flushed_batches == ["first", "second"]
    assert state.letters == [Letter(None, b"1", [])]


@pytest.mark.parametrize("count", [1, 1_000, 90_000])
def test_memory_of_waiting_rows_is_not_understated(count: int) -> None:
    state = _state()
    rows = {number.to_bytes(20, "big"): bytes(number % 60) for number in range(count)}
    state.merge_rows({"t": dict(rows)})
    held = sys.getsizeof(state.rows["t"]) + sum(
        -(-sys.getsizeof(each) // 16) * 16 for row in state.rows["t"].items() for each in row
    )
    assert held - 300 <= state.bytes_uncheckpointed <= 1.5 * held
    state.merge_rows({"t": dict.fromkeys(rows)})
    assert state.bytes_uncheckpointed <= 1.5 * held, "a row that changes again is no second row"


def test_rows_of_a_checkpoint_count_until_it_is_over() -> None:
    state = _state()
    state.merge_rows({"t": {b"a": b"1" * 100}})
    one = state.bytes_uncheckpointed
    checkpoint, batches = state.begin_checkpoint()
    assert state.bytes_uncheckpointed == one
    state.merge_rows({"t": {b"b": b"1" * 100}})
    assert state.bytes_uncheckpointed == 2 * one
    state.checkpoint_aborted(checkpoint, batches)
    assert state.bytes_uncheckpointed == 2 * one
    checkpoint, _ = state.begin_checkpoint()
    state.checkpoint_committed(checkpoint)
    assert state.bytes_uncheckpointed == 0


def test_rows_that_a_restart_found_pending_count() -> None:
    ownership = Ownership(lineage="c1", generation=4)
    rows: dict[str, dict[bytes, bytes | None]] = {"t": {b"a": b"1" * 100, b"b": None}}
    state = PartitionState(partition=2, shards={}, writer=cast(Any, None), ownership=ownership, rows=rows)
    assert state.bytes_uncheckpointed > 2 * 144
