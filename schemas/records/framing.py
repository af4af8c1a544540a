"""Frame of our binary records: ``[magic 3][version u8][BLAKE3(body) 16][body]``, body ``[length u32][…]``.

The length lets a cut record be told from a damaged one; the digest makes every other check of the body a
check of the writer, not of the wire.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from schemas.errors import RecordError

MAGIC_EVENTS: Final = b"TDL"
MAGIC_REKEYED: Final = b"TDR"
DIGEST_BYTES: Final = 16
HEADER_BYTES: Final = 4 + DIGEST_BYTES
_LENGTH_BYTES: Final = 4


def frame(magic: bytes, version: int, content: bytes) -> bytes:
    """One record of ``content``."""
    body = len(content).to_bytes(_LENGTH_BYTES, "little") + content
    return b"".join((magic, bytes((version,)), blake3(body).digest(DIGEST_BYTES), body))


def unframe(magic: bytes, version: int, value: bytes) -> bytes:
    """The content of a record.

    Raises:
        RecordError: ``unsupported_version`` (or no such magic), ``truncated_batch``, ``checksum_mismatch``.
    """
    if value[:3] != magic:
        raise RecordError(
            "unsupported_version", "", f"begins with {value[:3]!r}, a batch begins with {magic!r}"
        )
    if len(value) < HEADER_BYTES + _LENGTH_BYTES:
        raise RecordError("truncated_batch", "", f"{len(value)} bytes do not hold the header of a batch")
    if value[3] != version:
        raise RecordError("unsupported_version", "", f"version {value[3]}, this reader knows {version}")
    body = value[HEADER_BYTES:]
    length = int.from_bytes(body[:_LENGTH_BYTES], "little")
    if len(body) - _LENGTH_BYTES < length:
        raise RecordError(
            "truncated_batch",
            "",
            f"{len(body) - _LENGTH_BYTES} bytes of a body of {length}: the record was cut",
        )
    if blake3(body).digest(DIGEST_BYTES) != value[4:HEADER_BYTES]:
        raise RecordError("checksum_mismatch", "", "the BLAKE3 of the body is not the one in its header")
    return body[_LENGTH_BYTES:]
