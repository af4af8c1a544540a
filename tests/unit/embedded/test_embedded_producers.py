"""Sequences and epochs of one partition's producers."""

from __future__ import annotations

import pytest

from streams.embedded.batch import BatchHeader
from streams.embedded.errors import SequenceError
from streams.embedded.producers import SEQUENCE_MODULUS, Producers


def header(
    sequence: int, count: int = 1, *, epoch: int = 0, offset: int = 0, transactional: bool = False
) -> BatchHeader:
    return BatchHeader(
        offset, 100, 0, 2, 0, 0x10 if transactional else 0, count - 1, 0, 0, 9, epoch, sequence, count
    )


def sent(producers: Producers, *headers: BatchHeader) -> None:
    for one in headers:
        assert producers.check(one) is None
        producers.append(one, now_ms=1)


def code_of(producers: Producers, one: BatchHeader) -> str:
    with pytest.raises(SequenceError) as caught:
        producers.check(one)
    return caught.value.code


def test_a_repeated_batch_gets_its_first_offset() -> None:
    producers = Producers()
    sent(producers, *(header(i * 2, 2, offset=100 + i * 2) for i in range(5)))
    assert [producers.check(header(i * 2, 2)) for i in range(5)] == [100, 102, 104, 106, 108]


def test_only_five_batches_are_remembered() -> None:
    producers = Producers()
    sent(producers, *(header(i, offset=i) for i in range(6)))
    assert code_of(producers, header(0)) == "out_of_order_sequence_number"


def test_a_gap_is_out_of_order() -> None:
    producers = Producers()
    sent(producers, header(0))
    assert code_of(producers, header(2)) == "out_of_order_sequence_number"


def test_an_unknown_producer_may_begin_anywhere() -> None:
    assert Producers().check(header(77)) is None


def test_sequences_wrap() -> None:
    producers = Producers()
    sent(producers, header(SEQUENCE_MODULUS - 2, 4, offset=5))
    assert producers.check(header(SEQUENCE_MODULUS - 2, 4)) == 5
    assert producers.check(header(2)) is None
    assert code_of(producers, header(0)) == "out_of_order_sequence_number"


def test_a_newer_epoch_fences_the_older_and_begins_at_zero() -> None:
    producers = Producers()
    sent(producers, header(0), header(1))
    assert code_of(producers, header(2, epoch=1)) == "out_of_order_sequence_number"
    sent(producers, header(0, epoch=1))
    assert code_of(producers, header(2)) == "invalid_producer_epoch"


def test_a_marker_ends_the_transaction_and_fences() -> None:
    producers = Producers()
    sent(producers, header(0, offset=10, transactional=True), header(1, offset=11, transactional=True))
    assert producers.first_open_offset() == 10
    assert producers.end_transaction(9, 1, now_ms=2) == 10
    assert producers.first_open_offset() is None
    assert code_of(producers, header(2, transactional=True)) == "invalid_producer_epoch"


def test_a_snapshot_restores_everything() -> None:
    producers = Producers()
    sent(producers, header(0, 3, offset=10, transactional=True))
    restored = Producers()
    restored.restore(producers.snapshot())
    assert restored.check(header(0, 3)) == 10
    assert restored.open_transactions() == {9: 0}


def test_idle_producers_are_forgotten_unless_a_transaction_is_open() -> None:
    producers = Producers()
    sent(producers, header(0, transactional=True))
    producers.forget_idle(before_ms=100)
    assert len(producers) == 1
    producers.end_transaction(9, 0, now_ms=1)
    producers.forget_idle(before_ms=100)
    assert len(producers) == 0
