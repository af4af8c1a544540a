"""From names to integers: 64-bit EntityIds and the 32-bit codes of signals, states and edge types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

NOBODY: Final = 0
"""EntityId of the empty string: the anonymous user, the item without a creator."""


def entity_id(external_id: str) -> int:
    """The EntityId of an external id: the first 8 bytes of its BLAKE3, read big endian; 0 for ``""``.

    Two ids may share one (at a billion ids, about 1 in 37): whoever maps ids keeps the string beside the
    number and refuses the second one.
    """
    if not external_id:
        return NOBODY
    return int.from_bytes(blake3(external_id.encode()).digest(8), "big")


def entity_ids(external_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """``entity_id`` of each string, u64[n]."""
    digests = b"".join([blake3(text.encode()).digest(8) if text else b"\0" * 8 for text in external_ids])
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def code_of(name: str) -> int:
    """The u32 under which a signal, state or edge type is stored: it survives reordering of the schema."""
    return int.from_bytes(blake3(name.encode()).digest(4), "big")


def find_code_collisions(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (first, later) of different names with one code, in order of appearance."""
    first: dict[int, str] = {}
    owners = ((first.setdefault(code_of(name), name), name) for name in names)
    return [(owner, name) for owner, name in owners if owner != name]
