"""`tidal log inspect | verify | dump`: a look into the folder of a log that runs or not."""

from __future__ import annotations

import base64
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tidal.cli.failure import FAILED
from tidal.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from streams.embedded.dump import DumpedRecord
    from streams.embedded.inspection import Finding, LogFacts

INSPECT_EXAMPLE = "Example:  [bold]tidal log inspect ./data --json[/bold]"
VERIFY_EXAMPLE = "Example:  [bold]tidal log verify ./data[/bold]"
DUMP_EXAMPLE = (
    "Example:  [bold]tidal log dump tidal.signals --data ./data --partition 0 --from 100 --limit 10[/bold]"
)

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Data folder; of a stopped log, or of one that runs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(group: typer.Typer) -> None:
    """Adds the commands."""
    group.command("inspect", epilog=INSPECT_EXAMPLE)(inspect)
    group.command("verify", epilog=VERIFY_EXAMPLE)(verify)
    group.command("dump", epilog=DUMP_EXAMPLE)(dump)


def inspect(folder: FolderArgument, json: JsonOption = False) -> None:
    """Topics, segments, sizes, first and last offsets and times, torn tails; changes nothing."""
    from streams.embedded.inspection import inspect_log

    facts = inspect_log(folder)
    if json:
        print_json(facts)
        return
    state = f"process {facts.process} has it open" if facts.process is not None else "stopped"
    say(f"{facts.folder}: {len(facts.partitions)} partitions, {facts.bytes:,} bytes, {state}")
    columns = [
        "topic", "partition", "segment", "bytes", "first offset", "next offset", "first time", "last time",
        "torn bytes",
    ]  # fmt: skip
    print_table("", columns, _segment_rows(facts))
    if facts.guards:
        columns = ["topic", "partition", "group that retention waits for", "needs from", "last commit"]
        rows = [[g.topic, g.partition, g.group, g.offset, _time(g.committed_ms)] for g in facts.guards]
        print_table("", columns, rows)
    _say_findings(facts.findings)


def verify(folder: FolderArgument, json: JsonOption = False) -> None:
    """Read everything: every checksum, every index, every offset; fails when something is damaged."""
    from streams.embedded.inspection import verify_log

    result = verify_log(folder)
    if json:
        print_json({**msgspec.to_builtins(result), "is_sound": result.is_sound})
    else:
        _say_findings(result.findings)
        state = "sound" if result.is_sound else "DAMAGED"
        sys.stdout.write(
            f"{result.folder}: {state}; {result.partitions:,} partitions, "
            f"{result.segments:,} segments, {result.batches:,} batches, {result.records:,} records, "
            f"{result.bytes:,} bytes read\n"
        )
    if not result.is_sound:
        raise typer.Exit(FAILED)


def dump(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Name of the topic.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Data folder.")],
    partition: Annotated[int | None, typer.Option("--partition", min=0, help="Only this partition.")] = None,
    from_offset: Annotated[int, typer.Option("--from", min=0, help="Begin at this offset.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after as many records.")] = None,
    json: JsonOption = False,
) -> None:
    """Print the records of a topic as they lie on the disk, one line each, transaction markers too."""
    from streams.embedded.dump import dump_topic

    show = _as_json if json else _as_text
    for record in islice(dump_topic(data, topic, partition, from_offset), limit):
        sys.stdout.write(show(record) + "\n")


def _segment_rows(facts: LogFacts) -> list[list[Any]]:
    return [
        [
            partition.topic, partition.partition, segment.file, segment.bytes,
            max(segment.base_offset, partition.start_offset), segment.next_offset,
            _time(segment.first_time_ms), _time(segment.last_time_ms), segment.torn_bytes,
        ]
        for partition in facts.partitions
        for segment in partition.segments
    ]  # fmt: skip


def _time(at_ms: int | None) -> str | None:
    """UTC with milliseconds; a number where no calendar reaches."""
    from datetime import UTC, datetime, timedelta

    if at_ms is None:
        return None
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    except OverflowError:
        return f"{at_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _say_findings(findings: list[Finding]) -> None:
    for finding in findings:
        say(f"{finding.severity}: {finding.where}: {finding.what}")


def _as_text(record: DumpedRecord) -> str:
    parts = [str(record.partition), str(record.offset), str(_time(record.timestamp_ms)), record.kind]
    if record.kind == "record":
        parts += [_text(record.key), _text(record.value)]
        parts += [f"{name}={_text(content)}" for name, content in record.headers]
    return "\t".join(parts)


def _text(content: bytes | None) -> str:
    if content is None:
        return "null"
    try:
        return msgspec.json.encode(content.decode()).decode()
    except UnicodeDecodeError:
        return "0x" + content.hex()


def _as_json(record: DumpedRecord) -> str:
    line: dict[str, Any] = {
        "partition": record.partition, "offset": record.offset, "time_ms": record.timestamp_ms,
        "kind": record.kind,
    }  # fmt: skip
    if record.producer_id >= 0:
        line["producer_id"] = record.producer_id
    if record.kind == "record":
        line |= _json_field("key", record.key) | _json_field("value", record.value)
        line["headers"] = [
            {"name": name, **_json_field("value", content)} for name, content in record.headers
        ]
    return msgspec.json.encode(line).decode()


def _json_field(name: str, content: bytes | None) -> dict[str, str | None]:
    """Text as it is, other bytes in base64 under a name that says so."""
    try:
        return {name: content.decode() if content is not None else None}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content or b"").decode()}
