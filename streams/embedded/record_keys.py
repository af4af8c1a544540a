"""Does every record of a produced batch have a key? A compacted topic takes no others.

Only a topic that is compacted pays for this look into the records, a compressed batch is unpacked for it.
"""

from __future__ import annotations

from streams.embedded import batch
from streams.embedded.batch import BatchHeader, Buffer
from streams.embedded.errors import CorruptBatchError

# Lengths are zigzag numbers: an odd first byte is a negative one, and -1 is the length of a null.
_NEGATIVE = 0x01
_CONTINUES = 0x80


def require_keys(buffer: Buffer, header: BatchHeader) -> None:
    """Check a batch whose header is validated.

    Raises CorruptBatchError (invalid_record) for a record without key or records that cannot be read.
    """
    try:
        keyless = _first_keyless(batch.records_of(buffer, 0, header), header)
    except (CorruptBatchError, IndexError) as error:
        raise CorruptBatchError("invalid_record", f"the records cannot be read: {error}") from error
    if keyless >= 0:
        raise CorruptBatchError(
            "invalid_record", f"record {keyless} of the batch has no key, and the topic is compacted"
        )


def _first_keyless(data: bytes, header: BatchHeader) -> int:
    """Number of the first record without key in its batch, or -1."""
    end = 0
    for number in range(header.record_count):
        start = end
        position = start + 1
        length = data[start]
        if length < _CONTINUES:
            length >>= 1
        else:
            length, position = batch.read_varint(data, start)
        end = position + length
        # Attributes, then two numbers that say nothing about the key.
        position += 1
        while data[position] >= _CONTINUES:
            position += 1
        position += 1
        while data[position] >= _CONTINUES:
            position += 1
        position += 1
        if not start < position < end <= len(data):
            raise CorruptBatchError("invalid_record", f"record {number} runs over its batch")
        if data[position] & _NEGATIVE:
            return number
    if end != len(data):
        raise CorruptBatchError(
            "invalid_record", f"{len(data) - end} bytes follow the last of {header.record_count} records"
        )
    return -1
