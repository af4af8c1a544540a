"""Real data sets, which may not be shipped: where they are on this machine, or a skip that says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "TIDAL_TEST_DATA"
BESIDE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_set(name: str) -> Path:
    """The folder of a data set; skips the test where it is absent."""
    folder = Path(os.environ.get(VARIABLE, BESIDE_CHECKOUT)) / name
    if not folder.is_dir():
        pytest.skip(f"no {name} here: set {VARIABLE} to a folder that has it")
    return folder
