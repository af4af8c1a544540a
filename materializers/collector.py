"""What Python's cycle collector looks at: not again and again at what a process keeps until it ends."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS_MAX: Final = 20_000
"""New containers between two looks at the new ones, 700 by default. A fold makes thousands of lists and
tuples and no cycles; a cycle that waits longer costs a few hundred bytes.
"""


def keep_what_there_is() -> None:
    """Take every object there is now, code above all, for one that stays; look for cycles less often.

    A look at everything took 70 ms of a worker's event loop each 10 s or so, while nothing was served.
    """
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS_MAX, middle, old)
