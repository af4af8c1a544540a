"""`tidal dlq`: refused records: which there are, what one holds, and sending them again after a fix."""

from __future__ import annotations

import base64
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from streams.dead_letters import StoredDeadLetter
from streams.redrive import (
    LetterFacts,
    LetterPlace,
    Outcome,
    Wanted,
    find_letters,
    read_letter,
    redrive,
)
from tidal.cli.connection import BrokersOption, DataOption, brokers_of
from tidal.cli.failure import FAILED, UsageError
from tidal.cli.output import console, print_json, print_table, say
from tidal.cli.times import parse_time_ms, time_text
from tidal.progress import progress

LISTED_MAX: Final = 100
LEFT_OUT_SHOWN_MAX: Final = 20
VALUE_SHOWN_MAX: Final = 4_000

ReasonOption = Annotated[
    list[str] | None, typer.Option("--reason", metavar="CODE", help="Only letters with this reason's code.")
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Only letters that came from this topic.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only letters from then on: 2h, ISO 8601, or ms."),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only letters up to then: 2h, ISO 8601, or ms.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

LIST_EXAMPLE: Final = "Example:  [bold]tidal dlq list --reason unknown_kind --since 2h[/bold]"
SHOW_EXAMPLE: Final = "Example:  [bold]tidal dlq show 3/17[/bold]"
REDRIVE_EXAMPLE: Final = "Example:  [bold]tidal dlq redrive --reason unknown_kind[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command group."""
    group = typer.Typer(
        help="Refused records (dead letters): list them, look at one, send them again after a fix.",
        no_args_is_help=True,
        epilog=LIST_EXAMPLE,
    )
    group.command("list", epilog=LIST_EXAMPLE)(list_letters)
    group.command("show", epilog=SHOW_EXAMPLE)(show)
    group.command("redrive", epilog=REDRIVE_EXAMPLE)(redrive_letters)
    app.add_typer(group, name="dlq")


def list_letters(
    data: DataOption = None,
    brokers: BrokersOption = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    open_only: Annotated[
        bool, typer.Option("--open", help="Only letters that were not sent again yet.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many, the newest.")] = LISTED_MAX,
    json: JsonOption = False,
) -> None:
    """List refused records, and count them by reason."""
    wanted = _wanted((), reason, topic, since, until)
    letters = find_letters(brokers_of(brokers, data), wanted)
    if open_only:
        letters = [facts for facts in letters if not facts.sent_as]
    newest = sorted(letters, key=lambda facts: (facts.timestamp_ms, facts.place))[-limit:]
    if json:
        print_json(
            {"total": len(letters), "by_reason": _by_reason(letters), "letters": [_facts(f) for f in newest]}
        )
        return
    if newest:
        columns = ("letter", "refused at", "reason", "from", "first", "bytes", "state", "why")
        print_table("", columns, [_row(facts) for facts in newest])
    shown = f", the newest {len(newest):,} shown" if len(newest) < len(letters) else ""
    counts = ", ".join(f"{count:,} {code}" for code, count in _by_reason(letters).items())
    say(f"{len(letters):,} dead letters{shown}{': ' if counts else ''}{counts}")


def show(
    place: Annotated[
        str, typer.Argument(metavar="LETTER", help="Its place in the topic: PARTITION/OFFSET, as listed.")
    ],
    data: DataOption = None,
    brokers: BrokersOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes, as they are.")] = False,
    json: JsonOption = False,
) -> None:
    """Show one refused record: where it came from, why it was refused, and its bytes."""
    stored = read_letter(brokers_of(brokers, data), LetterPlace.parse(place))
    if raw:
        sys.stdout.buffer.write(stored.value)
        sys.stdout.buffer.flush()
    elif json:
        print_json(_whole(stored))
    else:
        fields = _whole(stored)
        fields["value"] = _text(stored.value)
        fields.pop("value_base64", None)
        for name, value in fields.items():
            sys.stdout.write(f"{name + ':':<15}{value if value is not None else '–'}\n")


def redrive_letters(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="[LETTER]…", help="Places, as `tidal dlq list` names them.")
    ] = None,
    data: DataOption = None,
    brokers: BrokersOption = None,
    all_letters: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were sent before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    json: JsonOption = False,
) -> None:
    """Send refused records again, to their topic and partition; each counts once, however often it is sent.

    What is refused again becomes a new letter that names the first one. Exits with 1 when letters that were
    named could not be sent.
    """
    if not (all_letters or places or reason or topic or since or until):
        raise UsageError(
            "Which letters?", where="tidal dlq redrive", do="name them, or give --reason, --topic, … or --all"
        )
    address = brokers_of(brokers, data)
    wanted = _wanted(places or (), reason, topic, since, until)
    letters = find_letters(address, wanted)
    missing = wanted.places - {facts.place for facts in letters}
    if dry_run:
        outcome = redrive(address, letters, again=again, dry_run=True)
    else:
        with progress(console() if not json else _silent(), "letters", len(letters)) as advance:
            outcome = redrive(address, letters, again=again, on_sent=advance)
            advance(len(outcome.left_out))
    outcome.left_out += [(place, "there is no such letter") for place in sorted(missing)]
    _report(outcome, dry_run, json)
    if outcome.left_out and places:
        raise typer.Exit(FAILED)


def _report(outcome: Outcome, dry_run: bool, json: bool) -> None:
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "sent": [
                    {"letter": str(place), "topic": at.topic, "partition": at.partition, "offset": at.offset}
                    for place, at in outcome.sent
                ],
                "left_out": [{"letter": str(place), "why": why} for place, why in outcome.left_out],
            }
        )
        return
    for place, why in outcome.left_out[:LEFT_OUT_SHOWN_MAX]:
        say(f"left out: {place}: {why}")
    if len(outcome.left_out) > LEFT_OUT_SHOWN_MAX:
        say(f"… and {len(outcome.left_out) - LEFT_OUT_SHOWN_MAX:,} more")
    verb = "would be sent" if dry_run else "sent"
    say(f"{len(outcome.sent):,} records {verb}, {len(outcome.left_out):,} letters left out")


def _wanted(
    places: Sequence[str],
    reasons: list[str] | None,
    topics: list[str] | None,
    since: str | None,
    until: str | None,
) -> Wanted:
    return Wanted(
        places=frozenset(map(LetterPlace.parse, places)),
        codes=frozenset(reasons or ()),
        topics=frozenset(topics or ()),
        since_ms=parse_time_ms(since, "--since"),
        until_ms=parse_time_ms(until, "--until"),
    )


def _by_reason(letters: Sequence[LetterFacts]) -> dict[str, int]:
    return dict(Counter(facts.code for facts in letters).most_common())


def _row(facts: LetterFacts) -> list[Any]:
    letter = facts.letter
    origin = f"{letter.topic}/{letter.partition}/{letter.offset}" if letter is not None else None
    if letter is not None and letter.event is not None:
        origin = f"{origin} event {letter.event}"
    return [
        str(facts.place),
        time_text(facts.timestamp_ms),
        facts.code,
        origin,
        str(letter.first) if letter is not None and letter.first is not None else None,
        facts.value_bytes,
        "sent" if facts.sent_as else "open",
        letter.reason if letter is not None else None,
    ]


def _facts(facts: LetterFacts) -> dict[str, Any]:
    return {
        "letter": str(facts.place),
        "refused_ms": facts.timestamp_ms,
        "bytes": facts.value_bytes,
        "sent_as": facts.sent_as or None,
        **_origin(facts.letter),
    }


def _origin(letter: Any) -> dict[str, Any]:
    """Where a letter came from and why it was refused."""
    if letter is None:
        return {"reason": "not_a_dead_letter"}
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "event": letter.event,
        "reason": letter.code,
        "path": letter.path,
        "message": letter.reason,
        "first_seen_ms": letter.first_seen_ms,
        "first_refused": str(letter.root),
    }


def _whole(stored: StoredDeadLetter) -> dict[str, Any]:
    shown = {
        "letter": str(LetterPlace(stored.partition, stored.offset)),
        "refused_at": time_text(stored.timestamp_ms),
        **_origin(stored.letter),
        "key": _text(stored.key) if stored.key is not None else None,
    }
    if stored.letter is not None:
        shown["first_seen"] = time_text(stored.letter.first_seen_ms)
    return shown | _value(stored.value)


def _value(value: bytes) -> dict[str, str]:
    """Text as it is, other bytes in base64 under a name that says so."""
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "0x" + value[: VALUE_SHOWN_MAX // 2].hex()
    return text if len(text) <= VALUE_SHOWN_MAX else f"{text[:VALUE_SHOWN_MAX]}… ({len(value):,} bytes)"


def _silent() -> Any:
    from rich.console import Console

    return Console(quiet=True)
