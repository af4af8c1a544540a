"""A refused record in ``tidal.dead-letter``: its bytes as the value, where it was and why in headers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec

from schemas.errors import RecordError
from schemas.records.profile_record import record_type

_PREFIX: Final = "tidal-"
_REASON_BYTES_MAX: Final = 1_024  # a reason may quote the value; brokers bound the size of headers


class RefusedRecord(Protocol):
    """What is needed of a consumed record. ``timestamp`` in ms."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class Origin(msgspec.Struct, frozen=True):
    """A place in the log: a record, or (``event`` not None) one event of it."""

    topic: str
    partition: int
    offset: int
    event: int | None = None

    def __str__(self) -> str:
        """``topic/partition/offset`` or ``topic/partition/offset/event``."""
        parts = (self.topic, self.partition, self.offset, *(() if self.event is None else (self.event,)))
        return "/".join(map(str, parts))

    @classmethod
    def parse(cls, text: str) -> Origin:
        """The inverse of ``str``; raises ValueError."""
        topic, *numbers = text.split("/")
        if len(numbers) not in (2, 3):
            raise ValueError(f"{text!r} is no topic/partition/offset")
        return cls(topic, *map(int, numbers))


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Where a refused record (or one event of it) was acknowledged, and why it was refused.

    ``event`` is the index of the event in its record, None = the whole record; ``path`` the field;
    ``first_seen_ms`` the time of the original record: a redriven one that fails again keeps it, and names in
    ``first`` what was refused first. ``record_type`` is what the engine's own records are (``profile`` …),
    empty for those of others.
    """

    topic: str
    partition: int
    offset: int
    event: int | None = None
    code: str
    path: str = ""
    reason: str
    first_seen_ms: int
    first: Origin | None = None
    record_type: str = ""

    @property
    def root(self) -> Origin:
        """What was refused first: the identity of these bytes, however often they are sent again."""
        return self.first or Origin(self.topic, self.partition, self.offset, self.event)


def dead_letter(error: RecordError, record: RefusedRecord, event: int | None = None) -> DeadLetter:
    """The dead letter for a record (one event of it) that was refused with ``error``.

    A record that carries a letter's headers is that letter sent again: the new one names the first.
    """
    before = letter_of(record.headers)
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        event=event,
        code=error.code,
        path=error.path,
        reason=error.message,
        first_seen_ms=record.timestamp if before is None else before.first_seen_ms,
        first=None if before is None else _of_event(before.root, event),
        record_type=record_type(record.headers).decode(errors="replace"),
    )


def _of_event(root: Origin, event: int | None) -> Origin:
    """The identity of one event of a record that was sent again.

    What was one event before is that event still, whatever its index in the bytes that were sent.
    """
    if event is None or root.event is not None:
        return root
    return Origin(root.topic, root.partition, root.offset, event)


def letter_of(headers: Iterable[tuple[str, bytes | None]] | None) -> DeadLetter | None:
    """The letter that a record carries in its headers; None for one that never was a dead letter."""
    if not headers:
        return None
    try:
        return letter_from_headers(headers)
    except RecordError:
        return None


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
        "first": "" if letter.first is None else str(letter.first),
        "record-type": letter.record_type,
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
            first=Origin.parse(texts["first"]) if texts.get("first") else None,
            record_type=texts.get("record-type", ""),
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
