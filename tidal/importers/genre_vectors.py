"""Item embeddings computed from genres, for data that comes without any.

The engine never makes embeddings; an importer has to bring some. Genres are what MovieLens says of a film, so
a film's vector is the sum of its genres' directions, a part for its decade and a small part of its own. A
direction belongs to a word: it is drawn from the word's hash, the same in every run and on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

DECADE_PART: Final = 0.3
OWN_PART: Final = 0.3
DIGITS: Final = 5


def genre_vector(item: str, genres: Sequence[str], year: int | None, dim: int) -> list[float]:
    """An embedding of length 1 and `dim` numbers: near for films of the same genres, never equal."""
    vector = OWN_PART * _direction(f"item {item}", dim)
    for genre in genres:
        vector = vector + _shared_direction(f"genre {genre.lower()}", dim) / np.sqrt(len(genres))
    if year is not None:
        vector = vector + DECADE_PART * _shared_direction(f"decade {year // 10}", dim)
    rounded: list[float] = np.round(vector / np.linalg.norm(vector), DIGITS).tolist()
    return rounded


def _direction(word: str, dim: int) -> npt.NDArray[np.float64]:
    seed = int.from_bytes(blake3(word.encode()).digest(length=8), "big")
    vector = np.random.default_rng(seed).normal(size=dim)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)


@lru_cache(maxsize=256)  # far more than there are genres and decades
def _shared_direction(word: str, dim: int) -> npt.NDArray[np.float64]:
    return _direction(word, dim)
