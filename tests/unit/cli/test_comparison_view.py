"""What `tidal query --compare` prints."""

from __future__ import annotations

import msgspec
import pytest

from queryd.http.examples import REPLIES
from queryd.reply import CohortComparison
from tidal.cli.comparison_view import print_comparison


def test_a_comparison_is_a_table_with_its_ground(capsys: pytest.CaptureFixture[str]) -> None:
    reply = msgspec.convert({**REPLIES["compareCohorts"], "warnings": ["they overlap"]}, CohortComparison)
    print_comparison(reply)
    printed = capsys.readouterr()
    row = next(line for line in printed.out.splitlines() if "item_I" in line)
    for cell in ("1", "4.93", "2.85 – 8.53", "40", "18", "1.000%", "0.200%"):
        assert f" {cell} " in row, (cell, row)
    assert "95% between" in printed.out
    for words in (
        "warning: they overlap",
        "a: locale:US, age:18-24 · 1,200 users · 4,000 view",
        "1 of 210 items by view in 24h",
        "75 with fewer than 5 events left out",
    ):
        assert words in printed.err
