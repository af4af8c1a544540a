"""What a benchmark prints: a Markdown table for people, JSON for machines, and on which machine it ran."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec


class Result(msgspec.Struct, frozen=True):
    """One benchmark's outcome. rows: one for each line of its table, keys are the columns."""

    name: str
    command: str
    rows: list[dict[str, Any]]
    notes: list[str] = []


def parser(name: str, purpose: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=purpose,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    made.add_argument("--short", action="store_true", help="a few seconds instead of a minute")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the outcome there too")
    return made


def report(result: Result, json_file: Path | None) -> None:
    """Prints the Markdown; writes the JSON beside the machine's description."""
    sys.stdout.write(markdown(result))
    sys.stdout.flush()
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine(), **msgspec.to_builtins(result)}
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(document)))


def markdown(result: Result) -> str:
    """A heading, the command, the table, and the notes."""
    lines = [f"## {result.name}", "", f"`{result.command}` – {description()}", ""]
    lines += table(result.rows)
    lines += [f"* {note}" for note in result.notes]
    return "\n".join(lines) + "\n\n"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table; the first row's keys are its columns."""
    if not rows:
        return ["(nothing was measured)", ""]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(shown(row.get(column)) for column in columns)} |" for row in rows]
    return [*lines, ""]


def shown(value: object) -> str:
    """A cell: thousands separated, three significant digits below 100."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def description() -> str:
    """The machine in one line."""
    found = machine()
    memory_gib = found["memory_bytes"] / 2**30
    processor = f"{found['cpus']} cores ({found['processor']}), {memory_gib:.0f} GiB"
    return f"{processor}, Python {found['python']}, {found['measured'][:10]}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
