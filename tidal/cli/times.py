"""Times on the command line and in what commands print."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from schemas.epoch import epoch_ms
from tidal.cli.failure import UsageError

_AGO = re.compile(r"(?P<count>\d+)(?P<unit>[smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_time_ms(text: str | None, option: str) -> int | None:
    """`2h` (ago), an ISO 8601 time (UTC unless it says otherwise), or milliseconds since 1970.

    Raises UsageError that names the option.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return time.time_ns() // 1_000_000 - int(ago["count"]) * _UNIT_S[ago["unit"]] * 1000
    if text.isdigit():
        return int(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no time", where=option, do="give 2h, 2026-01-31T12:00, or milliseconds since 1970"
        ) from error
    return epoch_ms(parsed)


def time_text(at_ms: int) -> str:
    """UTC to the millisecond; a number where no calendar reaches."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    except OverflowError:
        return f"{at_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
