"""Counters of one signal in one bucket of time, as columns: (item, profile) -> count, sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from queryd.hot.arrays import F64, I64, U32, Mask


@dataclass(frozen=True, slots=True)
class Cells:
    """Columns of one length: item u32, profile u32 (None: kept without), count u32, sum i64 (micro-units).

    ``moment`` f64 is Σ weight · (ts − start of the UTC day), of signals that decay linearly; None for others.
    """

    item: U32
    profile: U32 | None
    count: U32
    sum: I64
    moment: F64 | None = None

    def __len__(self) -> int:
        return len(self.item)

    @property
    def nbytes(self) -> int:
        """Bytes of its columns."""
        columns = (self.item, self.profile, self.count, self.sum, self.moment)
        return sum(int(column.nbytes) for column in columns if column is not None)

    def take(self, rows: I64 | Mask) -> Cells:
        """The cells of ``rows`` (positions or mask)."""
        profile = None if self.profile is None else self.profile[rows]
        moment = None if self.moment is None else self.moment[rows]
        return Cells(self.item[rows], profile, self.count[rows], self.sum[rows], moment)

    def allowed(self, mask: Mask | None) -> Cells:
        """The cells of the profiles that ``mask`` bool[profiles] allows."""
        return self if mask is None or self.profile is None else self.take(mask[self.profile])


def joined(parts: list[Cells]) -> Cells:
    """The cells of ``parts`` one after another; ``parts`` must not be empty."""
    if len(parts) == 1:
        return parts[0]
    profiles = [part.profile for part in parts if part.profile is not None]
    return Cells(
        np.concatenate([part.item for part in parts]),
        np.concatenate(profiles) if profiles else None,
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.sum for part in parts]),
        _joined_moments(parts),
    )


def _joined_moments(parts: list[Cells]) -> F64 | None:
    if all(part.moment is None for part in parts):
        return None
    return np.concatenate([np.zeros(len(part)) if part.moment is None else part.moment for part in parts])
