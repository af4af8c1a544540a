"""Sends dead letters again after a fix: the original bytes, to their topic, partition and key.

The record carries the letter's headers. By them the user shard counts each letter once, however often it is
sent (materializers/shards/redriven.py), and a letter that is refused again names the first. After the log's
acknowledgement a note in the dead-letter topic says that the letter was sent, so that the next redrive leaves
it out; a note that a crash prevented costs a record that is passed over.

An entity's record must not undo a newer one: its letter is left out when the topic has a later record of the
same key.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from schemas.errors import TidalError
from schemas.records.dead_letter import DeadLetter, Origin, letter_headers
from schemas.settings import ProducerSettings
from streams.dead_letters import FOREIGN, RedriveNote, StoredDeadLetter, note_headers, read_entries
from streams.errors import OffsetError
from streams.positions import Position
from streams.producer import Producer
from streams.topics import DEAD_LETTER, ENTITY_TOPICS, INTERNAL_MESSAGE_BYTES_MAX, RELATIONSHIPS, SIGNALS
from streams.whole_topic import WholeTopicReader

LETTERS_MAX: Final = 1_000_000
"""Facts of so many letters, about 1 KB each, are held at once."""

_IN_FLIGHT_MAX: Final = 500
_COMPACTED: Final = frozenset((*ENTITY_TOPICS.values(), RELATIONSHIPS))
_POLL_S: Final = 0.1


class RedriveError(TidalError):
    """Letters that cannot be sent again, or not so."""


class LetterPlace(NamedTuple):
    """Where a letter lies in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> LetterPlace:
        """`3/17`, or the same behind the topic's name; raises RedriveError."""
        numbers = text.removeprefix(DEAD_LETTER + "/").split("/")
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            raise RedriveError(
                f"{text!r} is no place of a dead letter; one is PARTITION/OFFSET, such as 3/17"
            )
        return cls(*map(int, numbers))


class LetterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A letter without its bytes. `sent_as` is the newest record that it became, empty when it is open."""

    place: LetterPlace
    timestamp_ms: int
    value_bytes: int
    letter: DeadLetter | None
    sent_as: str = ""

    @property
    def code(self) -> str:
        """The reason's code."""
        return FOREIGN if self.letter is None else self.letter.code


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters; what is empty or None chooses all. Times are the letters' own, both ends included."""

    places: frozenset[LetterPlace] = frozenset()
    codes: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    def holds(self, stored: StoredDeadLetter) -> bool:
        """Whether a letter is one of them."""
        topic = stored.letter.topic if stored.letter is not None else ""
        return (
            (not self.places or LetterPlace(stored.partition, stored.offset) in self.places)
            and (not self.codes or stored.code in self.codes)
            and (not self.topics or topic in self.topics)
            and (self.since_ms is None or stored.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or stored.timestamp_ms <= self.until_ms)
        )


@dataclass(slots=True)
class Outcome:
    """What a redrive did. left_out: the letters that were not sent, and why."""

    sent: list[tuple[LetterPlace, Position]] = field(default_factory=list)
    left_out: list[tuple[LetterPlace, str]] = field(default_factory=list)


def find_letters(brokers: str, wanted: Wanted) -> list[LetterFacts]:
    """The wanted letters, partition by partition in order.

    Raises RedriveError when they are more than LETTERS_MAX, and as `read_entries` does.
    """
    found: dict[LetterPlace, LetterFacts] = {}
    for entry in read_entries(brokers):
        if isinstance(entry, RedriveNote):
            place = LetterPlace(entry.partition, entry.letter_offset)
            if place in found:
                found[place] = msgspec.structs.replace(found[place], sent_as=entry.sent_as)
        elif wanted.holds(entry):
            place = LetterPlace(entry.partition, entry.offset)
            found[place] = LetterFacts(
                place=place,
                timestamp_ms=entry.timestamp_ms,
                value_bytes=len(entry.value),
                letter=entry.letter,
            )
            if len(found) > LETTERS_MAX:
                raise RedriveError(
                    f"more than {LETTERS_MAX:,} letters; choose fewer by reason, topic or time"
                )
    return sorted(found.values(), key=lambda facts: facts.place)


def read_letter(brokers: str, place: LetterPlace) -> StoredDeadLetter:
    """One letter with its bytes. Raises RedriveError when there is none, and as `read_entries` does."""
    try:
        for stored in _read_places(brokers, [place]):
            return stored
    except OffsetError:  # beyond the end of its partition
        pass
    raise RedriveError(f"{DEAD_LETTER} has no letter at {place}; `tidal dlq list` shows where they are")


def redrive(
    brokers: str,
    letters: Sequence[LetterFacts],
    *,
    again: bool = False,
    dry_run: bool = False,
    on_sent: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Send letters again, each refused event once, and note it.

    Args:
        letters: of `find_letters`. Of several letters of one event, the newest is sent.
        again: also those that were sent before.
        dry_run: send nothing; `sent` then holds the letters' own old positions.
        on_sent: told of the number of letters acknowledged since the last call.
    """
    outcome = Outcome()
    groups = _groups(letters, outcome, again=again)
    newest = {group[-1].place: group for group in groups}
    for place, offset in _superseded(brokers, [group[-1] for group in groups]).items():
        outcome.left_out.append((place, f"a newer record of its key is in the topic, at offset {offset}"))
        del newest[place]
    if dry_run:
        outcome.sent = [(place, _old_position(group[-1])) for place, group in newest.items()]
    elif newest:
        _send(brokers, newest, outcome, on_sent)
    return outcome


def _groups(letters: Sequence[LetterFacts], outcome: Outcome, *, again: bool) -> list[list[LetterFacts]]:
    """Letters of one refused event together, in the order in which they were refused."""
    by_root: dict[Origin, list[LetterFacts]] = defaultdict(list)
    for facts in letters:
        why = _why_not(facts, again=again)
        if why:
            outcome.left_out.append((facts.place, why))
        elif facts.letter is not None:
            by_root[facts.letter.root].append(facts)
    return [sorted(group, key=lambda facts: (facts.timestamp_ms, facts.place)) for group in by_root.values()]


def _why_not(facts: LetterFacts, *, again: bool) -> str:
    letter = facts.letter
    if letter is None:
        return "it was not written by Tidal: where it came from is not known"
    if letter.record_type or letter.topic not in (SIGNALS, *_COMPACTED):
        return "it is a record of the engine's own; `tidal rebuild` makes again what it stood for"
    if facts.sent_as and not again:
        return f"it was sent before, as {facts.sent_as}"
    return ""


def _old_position(facts: LetterFacts) -> Position:
    assert facts.letter is not None
    return Position(facts.letter.topic, facts.letter.partition, facts.letter.offset)


def _superseded(brokers: str, letters: Sequence[LetterFacts]) -> dict[LetterPlace, int]:
    """Letters of compacted topics whose key has a later record, and that one's offset."""
    by_topic: dict[str, list[LetterFacts]] = defaultdict(list)
    for facts in letters:
        if facts.letter is not None and facts.letter.topic in _COMPACTED:
            by_topic[facts.letter.topic].append(facts)
    found: dict[LetterPlace, int] = {}
    for topic, of_topic in by_topic.items():
        keys = {
            LetterPlace(stored.partition, stored.offset): stored.key
            for stored in _read_places(brokers, [facts.place for facts in of_topic])
        }
        newest = _newest_offsets(brokers, topic, of_topic)
        for facts in of_topic:
            assert facts.letter is not None
            offset = newest.get((facts.letter.partition, keys.get(facts.place)), -1)
            if offset > facts.letter.offset:
                found[facts.place] = offset
    return found


def _newest_offsets(
    brokers: str, topic: str, letters: Iterable[LetterFacts]
) -> dict[tuple[int, bytes | None], int]:
    """The last offset of each (partition, key), from the oldest of these letters' records on."""
    starts: dict[int, int] = {}
    for facts in letters:
        assert facts.letter is not None
        partition = facts.letter.partition
        starts[partition] = min(starts.get(partition, facts.letter.offset), facts.letter.offset)
    newest: dict[tuple[int, bytes | None], int] = {}
    with WholeTopicReader(brokers, topic, starts, partitions=starts) as reader:
        while not reader.caught_up:
            newest.update({(partition, key): at for partition, at, _, key, _ in reader.poll(_POLL_S)})
    return newest


def _read_places(brokers: str, places: Iterable[LetterPlace]) -> Iterator[StoredDeadLetter]:
    """The letters at these places, with their bytes; each partition is read from the first of them on."""
    wanted = set(places)
    starts: dict[int, int] = {}
    for place in wanted:
        starts[place.partition] = min(starts.get(place.partition, place.offset), place.offset)
    for entry in read_entries(brokers, starts, partitions=starts):
        if isinstance(entry, StoredDeadLetter) and LetterPlace(entry.partition, entry.offset) in wanted:
            yield entry


class _Sender:
    """Sends letters and, after the log's acknowledgement of each, its notes."""

    def __init__(self, producer: Producer, outcome: Outcome, on_sent: Callable[[int], None]) -> None:
        self._producer = producer
        self._outcome = outcome
        self._on_sent = on_sent
        self._in_flight: deque[tuple[StoredDeadLetter, Sequence[LetterFacts], Future[Position]]] = deque()
        self._notes: deque[Future[Position]] = deque()

    def send(self, stored: StoredDeadLetter, group: Sequence[LetterFacts]) -> None:
        """Send one letter, for a group of letters of the same event."""
        letter = stored.letter
        assert letter is not None
        future = self._producer.publish_raw(
            letter.topic, stored.key, stored.value, letter_headers(letter), letter.partition
        )
        self._in_flight.append((stored, group, future))
        if len(self._in_flight) >= _IN_FLIGHT_MAX:
            self._settle()

    def finish(self) -> None:
        """Wait for everything, the notes too."""
        while self._in_flight:
            self._settle()
        while self._notes:
            self._notes.popleft().result()

    def _settle(self) -> None:
        stored, group, future = self._in_flight.popleft()
        position = future.result()
        self._outcome.sent.append((LetterPlace(stored.partition, stored.offset), position))
        sent_as = f"{position.topic}/{position.partition}/{position.offset}"
        for facts in group:
            headers = note_headers(facts.place.offset, sent_as)
            self._notes.append(
                self._producer.publish_raw(DEAD_LETTER, stored.key, None, headers, facts.place.partition)
            )
        while len(self._notes) > _IN_FLIGHT_MAX:
            self._notes.popleft().result()
        self._on_sent(len(group))


def _send(
    brokers: str,
    chosen: Mapping[LetterPlace, Sequence[LetterFacts]],
    outcome: Outcome,
    on_sent: Callable[[int], None],
) -> None:
    settings = ProducerSettings(record_bytes_max=INTERNAL_MESSAGE_BYTES_MAX)
    with Producer(brokers, settings) as producer:
        sender = _Sender(producer, outcome, on_sent)
        for stored in _read_places(brokers, chosen):
            sender.send(stored, chosen[LetterPlace(stored.partition, stored.offset)])
        sender.finish()
