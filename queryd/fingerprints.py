"""Which version of which item an index holds, so that an index on disk is brought up to date and not rebuilt.

One file beside the index: EntityIds and fingerprints, written after the index has committed. Whatever the
file does not have with the same fingerprint is indexed again (which changes nothing if it was there), and
what it has in excess is deleted; so a crash between the two writes costs work and never an entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from blake3 import blake3

from queryd.hot.arrays import U64

_MAGIC: Final = b"TDLFP\x01"
_CHECK_BYTES: Final = 16


def fingerprint(*parts: bytes) -> int:
    """A u64 of the content that an index has of an item."""
    digest = blake3()
    for part in parts:
        digest.update(len(part).to_bytes(4, "little"))
        digest.update(part)
    return int.from_bytes(digest.digest(8), "little")


class Fingerprints:
    """EntityId -> fingerprint of everything indexed. ``kind`` describes the index's own layout."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = blake3(kind.encode()).digest(_CHECK_BYTES)
        self.held: dict[int, int] = {}

    def load(self) -> bool:
        """Read the file; False (and nothing held) when it is missing, damaged or of another layout."""
        self.held = {}
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return False
        head = len(_MAGIC) + 2 * _CHECK_BYTES
        body = raw[head:]
        kind, check = raw[len(_MAGIC) : head - _CHECK_BYTES], raw[head - _CHECK_BYTES : head]
        if raw[: len(_MAGIC)] != _MAGIC or kind != self._kind or check != blake3(body).digest(_CHECK_BYTES):
            return False
        pairs: U64 = np.frombuffer(body, dtype="<u8").reshape(-1, 2)
        self.held = dict(zip(pairs[:, 0].tolist(), pairs[:, 1].tolist(), strict=True))
        return True

    def save(self) -> None:
        """Replace the file at once: written beside it, then renamed."""
        pairs = np.empty((len(self.held), 2), dtype="<u8")
        pairs[:, 0] = np.fromiter(self.held.keys(), dtype=np.uint64, count=len(self.held))
        pairs[:, 1] = np.fromiter(self.held.values(), dtype=np.uint64, count=len(self.held))
        body = pairs.tobytes()
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(_MAGIC + self._kind + blake3(body).digest(_CHECK_BYTES) + body)
        temporary.replace(self._path)
