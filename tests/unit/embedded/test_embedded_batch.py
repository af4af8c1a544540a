"""Record batches: what is accepted, what is refused, what control batches say."""

from __future__ import annotations

import pytest

from streams.embedded import batch
from streams.embedded.errors import CorruptBatchError
from streams.embedded.record_keys import require_keys
from tests.unit.embedded.support import make_batch, rows

RECORDS = [(b"a", b"1"), (None, b"2"), (b"c", None)]


@pytest.mark.parametrize("codec", range(5))
def test_every_codec_is_read_back(codec: int) -> None:
    raw = make_batch(RECORDS, codec=codec, timestamp=500)
    header = batch.validate_produced(raw, 1 << 20)
    assert header.compression == codec
    assert [(row.key, row.value) for row in rows(bytes(raw))] == RECORDS
    assert [row.timestamp for row in rows(bytes(raw))] == [500, 501, 502]


def test_the_offset_is_stamped_outside_of_the_checksum() -> None:
    raw = make_batch(RECORDS)
    batch.stamp(raw, 41)
    header = batch.read_header(raw)
    assert (header.base_offset, header.last_offset, header.next_offset) == (41, 43, 44)
    assert batch.is_whole(raw, 0, header)


@pytest.mark.parametrize("position", [17, 21, 40, 61, -1])
def test_an_altered_batch_is_refused(position: int) -> None:
    raw = make_batch(RECORDS)
    raw[position] ^= 0x10
    with pytest.raises(CorruptBatchError) as caught:
        batch.validate_produced(raw, 1 << 20)
    assert caught.value.code == "corrupt_message"


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda raw: raw[:40], "corrupt_message"),
        (lambda raw: raw + raw, "invalid_record"),
        (lambda raw: raw[:16] + b"\x01" + raw[17:], "unsupported_for_message_format"),
        (
            lambda raw: batch.control_batch(producer_id=1, producer_epoch=0, commit=True, timestamp_ms=1),
            "invalid_record",
        ),
        (lambda raw: make_batch(RECORDS, transactional=True), "invalid_record"),
        (lambda raw: make_batch(RECORDS, producer_id=3, epoch=0, sequence=-1), "invalid_record"),
    ],
)
def test_what_clients_may_not_send(change, code: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CorruptBatchError) as caught:
        batch.validate_produced(change(make_batch(RECORDS)), 1 << 20)
    assert caught.value.code == code


def test_a_batch_above_the_limit_is_too_large() -> None:
    with pytest.raises(CorruptBatchError) as caught:
        batch.validate_produced(make_batch([(b"k", b"v" * 2_000)]), 1_000)
    assert caught.value.code == "message_too_large"


@pytest.mark.parametrize("commit", [True, False])
def test_markers_say_how_a_transaction_ended(commit: bool) -> None:
    marker = batch.control_batch(producer_id=7, producer_epoch=2, commit=commit, timestamp_ms=9)
    header = batch.read_header(marker)
    assert batch.is_whole(marker, 0, header)
    assert header.is_control
    assert header.is_transactional
    assert (header.producer_id, header.producer_epoch) == (7, 2)
    assert batch.is_commit_marker(marker, 0) is commit


def test_a_rebuilt_batch_keeps_offsets_and_loses_its_producer() -> None:
    raw = make_batch(RECORDS, producer_id=5, epoch=1, sequence=0, transactional=True, codec=4)
    batch.stamp(raw, 10)
    header = batch.read_header(raw)
    data = batch.records_of(raw, 0, header)
    stays = list(batch.parse_records(data, header))[1:]
    rebuilt = batch.rebuild(header, b"".join(data[r.start : r.end] for r in stays), len(stays))
    after = batch.read_header(rebuilt)
    assert [row.offset for row in rows(bytes(rebuilt))] == [11, 12]
    assert (after.producer_id, after.is_transactional, after.compression) == (-1, False, 4)
    assert after.next_offset == header.next_offset


def test_records_that_end_inside_of_one_are_an_error() -> None:
    header = batch.read_header(make_batch(RECORDS))
    with pytest.raises(CorruptBatchError):
        list(batch.parse_records(b"\x08\x00\x00", header))


KEYED = [(b"a", b"1"), (b"", None), (b"k" * 70, b"v" * 200)]


@pytest.mark.parametrize("codec", range(5))
def test_records_with_keys_pass_the_look_for_keys(codec: int) -> None:
    raw = make_batch(KEYED, codec=codec, timestamp=1 << 40)
    require_keys(raw, batch.read_header(raw))


@pytest.mark.parametrize("codec", range(5))
@pytest.mark.parametrize("place", range(4))
def test_a_record_without_key_is_named(codec: int, place: int) -> None:
    raw = make_batch([*KEYED[:place], (None, b"v"), *KEYED[place:]], codec=codec)
    with pytest.raises(CorruptBatchError, match=f"record {place} of the batch") as caught:
        require_keys(raw, batch.read_header(raw))
    assert caught.value.code == "invalid_record"


@pytest.mark.parametrize("codec", range(1, 5))
def test_a_bomb_is_refused_before_it_fills_the_memory(codec: int) -> None:
    raw = make_batch([(b"k", bytes(batch.UNPACKED_BYTES_MAX))], codec=codec)
    header = batch.read_header(raw)
    with pytest.raises(CorruptBatchError) as caught:
        require_keys(raw, header)
    assert caught.value.code == "invalid_record"
    with pytest.raises(CorruptBatchError):
        next(batch.iterate(raw, 0, header))


@pytest.mark.parametrize("codec", range(1, 5))
def test_what_just_fits_is_unpacked(codec: int) -> None:
    packed = batch.compress(bytes(100_000), codec)
    assert batch.decompress(packed, codec, 100_000) == bytes(100_000)
    with pytest.raises(CorruptBatchError):
        batch.decompress(packed, codec, 99_999)


def test_snappy_in_xerial_frames_is_looked_into() -> None:
    raw = make_batch([(b"k", b"v"), (None, b"v")])
    records = bytes(raw[batch.HEADER_BYTES :])
    blocks = [batch.compress(part, 2) for part in (records[:9], records[9:])]
    framed = b"\x82SNAPPY\x00" + bytes(8) + b"".join(len(b).to_bytes(4, "big") + b for b in blocks)
    header = batch.read_header(raw)._replace(attributes=2, length=49 + len(framed))
    with pytest.raises(CorruptBatchError, match="record 1"):
        require_keys(raw[: batch.HEADER_BYTES] + framed, header)


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"\x00",
        b"\x7e\x00\x00\x00\x02k\x00",
        b"\x01\x00\x00\x00\x02k\x00\x00",
        b"\x0e\x00\x00\x00\x02k\x00\x00extra",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        b"\x02\x00\xff\xff\xff",
    ],
)
def test_unreadable_records_are_refused(records: bytes) -> None:
    raw = make_batch([(b"k", b"v")])[: batch.HEADER_BYTES] + records
    header = batch.read_header(raw)._replace(length=49 + len(records))
    with pytest.raises(CorruptBatchError) as caught:
        require_keys(raw, header)
    assert caught.value.code == "invalid_record"
