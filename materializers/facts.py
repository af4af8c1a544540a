"""What a table says, free of how its rows happen to be cut: the form in which two folds are compared.

Two folds of one log may cut blocks elsewhere and deal other ordinals, so their rows differ while they say
the same. A view's *canonical reader* turns its rows into facts, each under a key that people can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError

if TYPE_CHECKING:
    from materializers.materializer import RowReader
    from schemas.model import Schema

WITHIN_DECAY: Final = 1e-9
"""Sums of floats in another order: decay scores and weights of edges, relative to the larger one."""
WITHIN_VECTOR: Final = 1e-6
"""Components of unit vectors in float32, absolute."""


class EntityRef(NamedTuple):
    """An EntityId in a fact's key: whoever knows its id writes that in its place."""

    entity_id: int

    def __str__(self) -> str:
        return f"#{self.entity_id:016x}"


class Fact(NamedTuple):
    """One thing that a table says.

    Attributes:
        table: where it stands.
        key: what it is about: strings, numbers, ``EntityRef``; unique in the table and partition.
        exact: what must be equal.
        close: f64[n], what must agree within ``within`` of the larger one, of 1 for small vector components
            and of 0.001 for small sums.
        detail: must be equal where both sides have one (not None), as a coarser bucket has not.
    """

    table: str
    key: tuple[Any, ...]
    exact: Any
    close: npt.NDArray[np.float64] | None = None
    within: float = 0.0
    detail: Any = None

    def agrees(self, other: Fact) -> bool:
        """Whether two facts under one key say the same."""
        if self.exact != other.exact:
            return False
        if self.detail is not None and other.detail is not None and self.detail != other.detail:
            return False
        if self.close is None or other.close is None:
            return self.close is other.close
        if self.close.shape != other.close.shape:
            return False
        size = np.maximum(np.maximum(np.abs(self.close), np.abs(other.close)), _tiny(self.within))
        return bool((np.abs(self.close - other.close) <= self.within * size).all())

    def says(self) -> str:
        """The value in words."""
        parts = [str(self.exact)] if self.exact != () else []
        if self.close is not None:
            parts.append(_numbers(self.close))
        if self.detail is not None:
            parts.append(str(self.detail))
        return " ".join(parts)


Canonical = Callable[["RowReader", "Schema"], Iterator[Fact]]
"""Reads all rows of a view in one partition. A row that cannot be read becomes a fact that says so."""


def raw_facts(*tables: str) -> Canonical:
    """The reader of tables whose rows are the same bytes in every fold."""

    def read(rows: RowReader, schema: Schema) -> Iterator[Fact]:
        for table in tables:
            for key, value in rows.scan(table):
                yield Fact(table, key_in_words(key), value)

    return read


def key_in_words(key: bytes) -> tuple[Any, ...]:
    """A row key taken apart if it begins with an EntityId, else as text if it is some, else in hex."""
    if len(key) >= _ENTITY_PART and key[_ENTITY_PART - 2] == 0:
        suffix = key[_ENTITY_PART:]
        named = (EntityRef(int.from_bytes(key[:8], "big")), f"tag {key[_ENTITY_PART - 1]}")
        return (*named, "0x" + suffix.hex()) if suffix else named
    text = key.decode("ascii", "replace")
    return (text,) if text and text.isprintable() and "\ufffd" not in text else ("0x" + key.hex(),)


def unreadable(table: str, key: bytes, error: Exception) -> Fact:
    """The fact of a row that is damaged."""
    return Fact(table, key_in_words(key), f"cannot be read: {error}")


_ENTITY_PART: Final = 10
"""Bytes of ``[EntityId u64][0x00][tag u8]``, with which most row keys begin."""

DAMAGE: Final = (RowFormatError, ValueError, IndexError, KeyError)
"""What reading a damaged row raises."""


def _tiny(within: float) -> float:
    """Below this size numbers are compared absolutely."""
    return 1.0 if within >= WITHIN_VECTOR else 1e-3


def _numbers(values: npt.NDArray[np.float64]) -> str:
    shown = [f"{value:.12g}" for value in values.ravel()[:4].tolist()]
    rest = values.size - len(shown)
    return "[" + ", ".join(shown) + (f", … {rest} more]" if rest > 0 else "]")
