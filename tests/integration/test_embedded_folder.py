"""The folder of an embedded log belongs to one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.embedded_process import LogProcess


def test_a_second_log_cannot_open_the_same_folder(tmp_path: Path) -> None:
    first, second = LogProcess(tmp_path / "log"), LogProcess(tmp_path / "log")
    first.start()
    try:
        with pytest.raises(RuntimeError, match="is in use by another log"):
            second.start()
    finally:
        first.close()
