"""Which loads and moments are tried: one seed in the short form, three in the full one."""

from __future__ import annotations

import os

FULL = "TIDAL_CRASH_FULL" in os.environ
FIRST = int(os.environ.get("TIDAL_CRASH_SEED", "20261121"))
SEEDS = (FIRST, FIRST + 1, FIRST + 2) if FULL else (FIRST,)
