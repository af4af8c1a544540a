"""Where the fate of an event or a record is reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streams.positions import Position


class Settled(Protocol):
    """A future of either kind, or one part of a batch's acknowledgement."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Position, /) -> None:
        """The record is in the log at this position."""

    def set_exception(self, exception: Exception, /) -> None:
        """The record is not known to be in the log."""


def settle_all(futures: Sequence[Settled], position: Position | None, error: Exception | None) -> None:
    """Tell each future: the position, or the error. One that its caller has cancelled stays so."""
    for future in futures:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            assert position is not None, "a record without an error has a position"
            future.set_result(position)
