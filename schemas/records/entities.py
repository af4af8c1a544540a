"""Records of the compacted entity topics, from plain JSON to typed fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Status: TypeAlias = Literal["active", "archived", "deleted"]


@dataclass(slots=True)
class EntityRecord:
    """One valid entity record.

    ``fields`` holds declared fields in their types (time in ms) and, without ``strict``, the others as they
    came; ``embeddings`` f32[dim] by slot as they are stored (unit length where the metric is cosine);
    ``raw`` the record's own bytes.
    """

    kind: str
    id: str
    status: Status = "active"
    creator: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    embeddings: dict[str, F32] = field(default_factory=dict)
    raw: bytes = b""


@dataclass(slots=True)
class EdgeRecord:
    """One valid explicit edge; ``ts_ms`` is when it was written by its source, None = the record's time."""

    type: str
    source: str
    target: str
    weight: float = 1.0
    ts_ms: int | None = None
    raw: bytes = b""
