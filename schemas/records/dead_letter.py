"""A refused record in ``tidal.dead-letter``: its bytes as the value, where it was and why in headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.errors import RecordError

_PREFIX: Final = "tidal-"
_REASON_BYTES_MAX: Final = 1_024  # a reason may quote the value; brokers bound the size of headers


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Where a refused record (or one event of it) was acknowledged, and why it was refused.

    ``event`` is the index of the event in its record, None = the whole record; ``path`` the field;
    ``first_seen_ms`` the time of the original record: a redriven one that fails again keeps it.
    """

    topic: str
    partition: int
    offset: int
    event: int | None = None
    code: str
    path: str = ""
    reason: str
    first_seen_ms: int


def dead_letter(
    error: RecordError, topic: str, partition: int, offset: int, first_seen_ms: int, event: int | None = None
) -> DeadLetter:
    """The dead letter for a record that was refused with ``error``."""
    return DeadLetter(
        topic=topic,
        partition=partition,
        offset=offset,
        event=event,
        code=error.code,
        path=error.path,
        reason=error.message,
        first_seen_ms=first_seen_ms,
    )


def letter_headers(letter: DeadLetter) -> list[tuple[str, bytes]]:
    """The headers of the dead-letter record; its value is the refused bytes, its key the original key."""
    texts = {
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "event": "" if letter.event is None else str(letter.event),
        "code": letter.code,
        "path": letter.path,
        "reason": letter.reason,
        "first-seen": str(letter.first_seen_ms),
    }
    return [(_PREFIX + name, _bounded(text)) for name, text in texts.items()]


def letter_from_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> DeadLetter:
    """The dead letter that ``letter_headers`` wrote.

    Raises:
        RecordError: ``missing_field`` or ``wrong_type``: the record was not written by Tidal.
    """
    texts = {
        name.removeprefix(_PREFIX): (value or b"").decode(errors="replace")
        for name, value in headers or ()
        if name.startswith(_PREFIX)
    }
    try:
        return DeadLetter(
            topic=texts["topic"],
            partition=int(texts["partition"]),
            offset=int(texts["offset"]),
            event=int(texts["event"]) if texts.get("event") else None,
            code=texts["code"],
            path=texts.get("path", ""),
            reason=texts["reason"],
            first_seen_ms=int(texts["first-seen"]),
        )
    except KeyError as error:
        name = _PREFIX + str(error.args[0])
        raise RecordError(
            "missing_field", name, "a dead letter has this header, this record does not"
        ) from error
    except ValueError as error:
        raise RecordError(
            "wrong_type", _PREFIX, f"a header of a dead letter is no number: {error}"
        ) from error


def _bounded(text: str) -> bytes:
    return text.encode(errors="replace")[:_REASON_BYTES_MAX]
