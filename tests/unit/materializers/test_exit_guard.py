"""A process that does not end by itself is ended."""

from __future__ import annotations

import threading

from materializers.exit_guard import ExitGuard


def test_it_leaves_once_after_the_bound() -> None:
    codes: list[int] = []
    left = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    guard = ExitGuard(0.05, leave)
    guard.start(130)
    guard.start(1)
    assert left.wait(10.0)
    assert codes == [130]
