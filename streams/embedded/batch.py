"""Record batches, format 2: header, checksum, control batches; records only for the cold paths.

The log stores batches as they came. Only the base offset (bytes 0-7) and the leader epoch (12-15) are
written by us, both lie before the checksummed part, so a batch keeps the checksum its producer gave it.

Format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import cramjam
from crc32c import crc32c

from streams.embedded.errors import CorruptBatchError

Buffer = bytes | bytearray | memoryview | mmap.mmap

_HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = _HEADER.size
_OFFSET_AND_LENGTH = struct.Struct(">qi")
_OFFSET_TO_EPOCH = struct.Struct(">qii")
# The length field counts what follows it.
LENGTH_OVERHEAD = 12
CRC_START = 21
_BATCH_LENGTH_MIN = HEADER_BYTES - LENGTH_OVERHEAD

_COMPRESSION_MASK = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_STREAM_CODECS: dict[int, Any] = {1: cramjam.gzip, 3: cramjam.lz4, 4: cramjam.zstd}

NO_PRODUCER = -1
# What a compressed batch may unpack to: clients bound their batches before they compress them, to 1 MiB.
UNPACKED_BYTES_MAX = 64 << 20


class BatchHeader(NamedTuple):
    """The fixed 61 bytes in front of every batch, in their order on disk."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LENGTH_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL)

    @property
    def compression(self) -> int:
        return self.attributes & _COMPRESSION_MASK


class Record(NamedTuple):
    """One record with the byte range that it fills in the (decompressed) records of its batch.

    `value_start` is where the length of its value stands, its headers follow.
    """

    offset: int
    timestamp: int
    key: bytes | None
    has_value: bool
    start: int
    end: int
    value_start: int


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`; the caller has made sure that 61 bytes are there."""
    return BatchHeader._make(_HEADER.unpack_from(buffer, position))


def checksum(buffer: Buffer, position: int, size: int) -> int:
    """CRC-32C of the part of a batch that producers sign."""
    return int(crc32c(memoryview(buffer)[position + CRC_START : position + size]))


def is_whole(buffer: Buffer, position: int, header: BatchHeader) -> bool:
    """Is the batch at `position` complete and unaltered?"""
    return (
        header.magic == 2
        and header.length >= _BATCH_LENGTH_MIN
        and position + header.size <= len(buffer)
        and header.last_offset_delta >= 0
        and checksum(buffer, position, header.size) == header.crc
    )


def validate_produced(buffer: Buffer, batch_bytes_max: int) -> BatchHeader:
    """Check what one partition of a Produce request carries: exactly one sound batch of a client.

    Raises CorruptBatchError with the protocol's error name.
    """
    size = len(buffer)
    if size < HEADER_BYTES:
        raise CorruptBatchError("corrupt_message", f"{size} bytes are less than a batch header")
    header = read_header(buffer)
    if header.magic != 2:
        raise CorruptBatchError(
            "unsupported_for_message_format",
            f"record format {header.magic}, only 2 is kept; use a newer client",
        )
    if size > batch_bytes_max:
        raise CorruptBatchError("message_too_large", f"batch of {size} bytes, the limit is {batch_bytes_max}")
    if header.size != size:
        raise CorruptBatchError(
            "invalid_record", f"{size} bytes do not hold exactly one batch of {header.size}"
        )
    if checksum(buffer, 0, size) != header.crc:
        raise CorruptBatchError("corrupt_message", "the checksum does not fit")
    _validate_fields(header)
    return header


def _validate_fields(header: BatchHeader) -> None:
    if header.is_control:
        raise CorruptBatchError("invalid_record", "clients may not write control batches")
    if header.record_count < 1 or header.record_count != header.last_offset_delta + 1:
        raise CorruptBatchError(
            "invalid_record", f"{header.record_count} records, last offset delta {header.last_offset_delta}"
        )
    if header.attributes & _LOG_APPEND_TIME:
        raise CorruptBatchError("invalid_timestamp", "log append time is set by brokers, not by clients")
    if header.compression > 4:
        raise CorruptBatchError("unsupported_compression_type", f"codec {header.compression}")
    if header.producer_id >= 0 and (header.producer_epoch < 0 or header.base_sequence < 0):
        raise CorruptBatchError("invalid_record", "a producer id without epoch or sequence")
    if header.is_transactional and header.producer_id < 0:
        raise CorruptBatchError("invalid_record", "a transactional batch without producer id")


def stamp(buffer: bytearray | memoryview, base_offset: int) -> None:
    """Write the offset and leader epoch that the log gives to a batch."""
    length = _OFFSET_AND_LENGTH.unpack_from(buffer, 0)[1]
    _OFFSET_TO_EPOCH.pack_into(buffer, 0, base_offset, length, 0)


def control_batch(*, producer_id: int, producer_epoch: int, commit: bool, timestamp_ms: int) -> bytearray:
    """A transaction marker, still without offset."""
    key = struct.pack(">hh", 0, 1 if commit else 0)
    value = struct.pack(">hi", 0, 0)
    body = b"\x00\x00\x00" + _varint(len(key)) + key + _varint(len(value)) + value + _varint(0)
    record = _varint(len(body)) + body
    return _assemble(
        record,
        BatchHeader(
            0,
            0,
            0,
            2,
            0,
            _TRANSACTIONAL | _CONTROL,
            0,
            timestamp_ms,
            timestamp_ms,
            producer_id,
            producer_epoch,
            -1,
            1,
        ),
    )


def is_commit_marker(buffer: Buffer, position: int) -> bool:
    """Does the control batch at `position` commit (else it aborts)?"""
    for record in iterate(buffer, position, read_header(buffer, position)):
        return record.key is not None and struct.unpack_from(">hh", record.key)[1] == 1
    return False


def _assemble(records: bytes, header: BatchHeader) -> bytearray:
    batch = bytearray(HEADER_BYTES) + records
    sized = header._replace(length=len(batch) - LENGTH_OVERHEAD)
    _HEADER.pack_into(batch, 0, *sized)
    _HEADER.pack_into(batch, 0, *sized._replace(crc=checksum(batch, 0, len(batch))))
    return batch


def rebuild(header: BatchHeader, records: bytes, record_count: int) -> bytearray:
    """The batch with fewer records and without its producer; offsets, timestamps and codec stay."""
    return _assemble(
        compress(records, header.compression), _plain(header)._replace(record_count=record_count)
    )


def without_producer(content: bytes, header: BatchHeader) -> bytes | bytearray:
    """The same batch without its producer and transaction."""
    if header.producer_id < 0:
        return content
    return _assemble(content[HEADER_BYTES : header.size], _plain(header))


def _plain(header: BatchHeader) -> BatchHeader:
    return header._replace(
        attributes=header.attributes & ~_TRANSACTIONAL,
        producer_id=NO_PRODUCER,
        producer_epoch=-1,
        base_sequence=-1,
    )


def records_of(buffer: Buffer, position: int, header: BatchHeader) -> bytes:
    """The decompressed records of a batch.

    Raises CorruptBatchError when they cannot be decompressed.
    """
    packed = bytes(memoryview(buffer)[position + HEADER_BYTES : position + header.size])
    return decompress(packed, header.compression)


def iterate(buffer: Buffer, position: int, header: BatchHeader) -> Iterator[Record]:
    """Records of one batch, values not copied. Raises CorruptBatchError on a malformed one."""
    return parse_records(records_of(buffer, position, header), header)


def parse_records(data: bytes, header: BatchHeader) -> Iterator[Record]:
    """Records in decompressed bytes, in order. Raises CorruptBatchError on a malformed one."""
    position = 0
    try:
        for _ in range(header.record_count):
            start = position
            length, position = read_varint(data, position)
            end = position + length
            if length < 0 or end > len(data):
                raise CorruptBatchError("corrupt_message", f"record at byte {start} runs over its batch")
            timestamp_delta, position = read_varint(data, position + 1)
            offset_delta, position = read_varint(data, position)
            key_length, position = read_varint(data, position)
            key = None
            if key_length >= 0:
                key = data[position : position + key_length]
                position += key_length
            value_length, _ = read_varint(data, position)
            yield Record(
                header.base_offset + offset_delta,
                header.base_timestamp + timestamp_delta,
                key,
                value_length >= 0,
                start,
                end,
                position,
            )
            position = end
    except IndexError as error:
        raise CorruptBatchError(
            "corrupt_message", f"records end inside of one, at byte {position}"
        ) from error


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, position after it) of a zigzag number."""
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    value = byte & 0x7F
    shift = 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
        if shift > 63:
            raise CorruptBatchError("corrupt_message", f"an endless number at byte {position}")


def _varint(value: int) -> bytes:
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def decompress(data: bytes, codec: int, bytes_max: int = UNPACKED_BYTES_MAX) -> bytes:
    """Undo codec 0 none, 1 gzip, 2 snappy (raw or in Xerial frames), 3 lz4, 4 zstd.

    bytes_max: what would become larger is refused, without the memory for it.
    Raises CorruptBatchError.
    """
    if codec == 0:
        return data
    if codec > 4:
        raise CorruptBatchError("unsupported_compression_type", f"codec {codec}")
    try:
        if codec == 2:
            return _decompress_snappy(data, bytes_max)
        stream = _STREAM_CODECS[codec]
        # Memory that is not written to costs nothing.
        with mmap.mmap(-1, bytes_max) as room:
            return room[: stream.decompress_into(data, room)]
    except cramjam.DecompressionError as error:
        raise CorruptBatchError(
            "corrupt_message", f"codec {codec} cannot be undone, or to more than {bytes_max} bytes: {error}"
        ) from error


def compress(data: bytes, codec: int) -> bytes:
    """Apply a codec by its number."""
    if codec == 0:
        return data
    if codec == 2:
        return bytes(cramjam.snappy.compress_raw(data))
    return bytes(_STREAM_CODECS[codec].compress(data))


def _decompress_snappy(data: bytes, bytes_max: int) -> bytes:
    blocks = list(_snappy_blocks(data))
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > bytes_max:
        raise CorruptBatchError("corrupt_message", f"its records have more than {bytes_max} bytes")
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_XERIAL_MAGIC):
        yield data
        return
    position = 16
    while position + 4 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        position += 4
        yield data[position : position + size]
        position += size
