"""Which event is a repetition: the same kind, item, user and second within two generations of log time."""

from __future__ import annotations

from tests.oracle.records import Event

Digest = tuple[str, str, str, int]


class Horizon:
    """The horizon of one user partition."""

    def __init__(self, generation_ms: int) -> None:
        self._generation_ms = generation_ms
        self._epoch = -1
        self._current: set[Digest] = set()
        self._previous: set[Digest] = set()

    def is_repetition(self, event: Event) -> bool:
        """Whether the event was seen; if not, it is from now on."""
        epoch = event.record_ms // self._generation_ms
        if epoch > self._epoch:
            self._previous = self._current if epoch == self._epoch + 1 else set()
            self._current = set()
            self._epoch = epoch
        digest = (event.kind, event.item, event.user, event.ts_ms // 1000)
        if digest in self._current or digest in self._previous:
            return True
        self._current.add(digest)
        return False

    def forget(self, user: str) -> None:
        """What the user sent was never seen."""
        self._current = {digest for digest in self._current if digest[2] != user}
        self._previous = {digest for digest in self._previous if digest[2] != user}
