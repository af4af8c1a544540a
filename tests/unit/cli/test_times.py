"""Times as people give them to commands."""

from __future__ import annotations

import time

import pytest

from tidal.cli.failure import UsageError
from tidal.cli.times import parse_time_ms, time_text

_HAIR_BELOW = "2004-10-28T23:41:18.916"
"""As seconds in a float this is a hair below its millisecond."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("1099006878916", 1_099_006_878_916),
        (_HAIR_BELOW, 1_099_006_878_916),
        (f"{_HAIR_BELOW}+02:00", 1_099_006_878_916 - 7_200_000),
    ],
)
def test_a_time_is_exact_to_the_millisecond(text: str | None, expected: int | None) -> None:
    assert parse_time_ms(text, "--since") == expected


def test_so_long_ago() -> None:
    ago = parse_time_ms("2h", "--since")
    assert ago is not None
    assert abs(time.time() * 1000 - 7_200_000 - ago) < 60_000


def test_what_is_no_time_is_refused_by_the_option_that_has_it() -> None:
    with pytest.raises(UsageError, match="'yesterday' is no time"):
        parse_time_ms("yesterday", "--since")


def test_a_time_is_shown_as_it_is_given() -> None:
    assert parse_time_ms(time_text(1_099_006_878_916), "--since") == 1_099_006_878_916
