"""Hacker News posts as Tidal sees them: stories, authors as creators, votes and comments as signals.

| column | becomes |
|---|---|
| id, title, url | the item record; `category` is `ask`, `show` or `story` by the title |
| author | the item's creator, and a creator record |
| created_at | `created_at` of the item and the time of its signals (the file has minutes, read as UTC) |
| num_points | a `like` with the points as weight, so that its sum is the points |
| num_comments | a `comment` with the number of comments as weight |

Who voted and who commented is not in the file: these signals are anonymous. One of weight 0 is not written.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.epoch import epoch_ms
from schemas.records.columns import EventColumns
from schemas.weights import WEIGHT_MAX, to_micro
from tidal.importers.refused_events import EventBounds, OddRow, raw_event
from tidal.importers.rows import ImporterError, Refusals, open_text
from tidal.publishing import Entry, Step

SIGNALS: Final[Mapping[str, str]] = {"num_points": "like", "num_comments": "comment"}
COLUMNS: Final = ("id", "title", "author", "created_at", *SIGNALS)
PATTERNS: Final = ("*.csv", "*.csv.gz")
TIME_FORMATS: Final = ("%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")
ROWS_PER_STEP: Final = 5_000


@dataclass(frozen=True, slots=True)
class Story:
    """One post. weights: by signal. `line` is the first one of the row, which a title may break."""

    line: int
    id: str
    title: str
    url: str
    author: str
    ts_ms: int
    weights: dict[str, float]


class Stories(NamedTuple):
    """The good rows in the order of the file, and those that the engine will refuse."""

    good: list[Story]
    odd: list[OddRow]

    def shifted_to(self, newest_ms: int) -> Stories:
        """The same with the newest good one at `newest_ms`, distances kept."""
        if not self.good:
            return self
        shift_ms = newest_ms - max(story.ts_ms for story in self.good)
        return Stories([replace(story, ts_ms=story.ts_ms + shift_ms) for story in self.good], self.odd)


class _RowError(Exception):
    """Why a row cannot be used."""


def find_file(path: Path) -> Path:
    """The data file: `path` itself, or the only CSV file of that folder. Raises ImporterError."""
    if path.is_file():
        return path
    found = sorted(each for pattern in PATTERNS for each in path.glob(pattern)) if path.is_dir() else []
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ImporterError(f"{path}: one CSV file is needed, found {names}; name the file")
    return found[0]


def read_stories(path: Path, bounds: EventBounds, refusals: Refusals) -> Stories:
    """All rows of the file; what is no row is refused. Raises ImporterError when a column is missing."""
    stories = Stories([], [])
    for line, row in _rows(path):
        try:
            story = _story(line, row)
        except _RowError as error:
            refusals.add(path, line, str(error))
            continue
        reason = bounds.fault(story.id, "", story.ts_ms)
        if reason:
            stories.odd.extend(
                OddRow(line, reason, raw_event(kind, story.id, "", story.ts_ms, weight))
                for kind, weight in story.weights.items()
            )
        else:
            stories.good.append(story)
    return stories


def creators(stories: Sequence[Story]) -> list[Entry]:
    """A creator record for each author, by the line of the first post."""
    first: dict[str, int] = {}
    for story in stories:
        first.setdefault(story.author, story.line)
    return [Entry(line, {"id": author, "name": author}) for author, line in first.items() if author]


def items(stories: Sequence[Story]) -> list[Entry]:
    """An item record for each post."""
    return [Entry(story.line, _item(story)) for story in stories]


def steps(
    path: Path, stories: Stories, signals: frozenset[str], dead: Refusals, first: int
) -> Iterator[Step]:
    """The signals of the good stories from number `first` on, those of `signals` only.

    The first step of all also has the rows that the engine will refuse, of which `dead` is told.
    """
    odd = stories.odd if first == 0 else []
    for row in odd:
        dead.add(path, row.line, row.reason)
    good = stories.good
    for start in range(first, max(len(good), 1), ROWS_PER_STEP):
        part = good[start : start + ROWS_PER_STEP]
        yield Step(start + len(part), _columns(part, signals), [row.event for row in odd])
        odd = []


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with open_text(path) as file:
        reader = csv.reader(file)
        header = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ImporterError(f"{path}: the header lacks {', '.join(missing)}; it has {', '.join(header)}")
        line = reader.line_num + 1
        for row in reader:
            if row:
                yield line, dict(zip(header, row, strict=False))
            line = reader.line_num + 1


def _story(line: int, row: dict[str, str]) -> Story:
    lacking = [name for name in COLUMNS if name not in row]
    if lacking:
        raise _RowError(f"no {lacking[0]}: the row is too short")
    if not row["id"].strip():
        raise _RowError("no id")
    weights = {signal: _weight(column, row[column]) for column, signal in SIGNALS.items()}
    return Story(
        line=line,
        id=row["id"].strip(),
        title=row["title"].strip(),
        url=row.get("url", "").strip(),
        author=row["author"].strip(),
        ts_ms=_time_ms(row["created_at"].strip()),
        weights={signal: weight for signal, weight in weights.items() if weight},
    )


def _weight(column: str, text: str) -> float:
    try:
        number = float(text or 0)
    except ValueError as error:
        raise _RowError(f"{column} {text!r} is no number") from error
    if not -WEIGHT_MAX <= number <= WEIGHT_MAX:
        raise _RowError(f"{column} {text!r} is beyond ±{WEIGHT_MAX:,.0f}")
    return number


def _time_ms(text: str) -> int:
    for form in TIME_FORMATS:
        try:
            parsed = datetime.strptime(text, form)
        except ValueError:
            continue
        return epoch_ms(parsed)
    raise _RowError(f"created_at {text!r} is no time such as 8/4/2016 11:52")


def _item(story: Story) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": story.id,
        "title": story.title,
        "category": _category(story.title),
        "created_at": story.ts_ms,
        "status": "active",
    }
    if story.author:
        record["creator"] = story.author
    if story.url:
        record["url"] = story.url
    return record


def _category(title: str) -> str:
    start = title[:8].lower()
    return "ask" if start.startswith("ask hn") else "show" if start.startswith("show hn") else "story"


def _columns(stories: Sequence[Story], signals: frozenset[str]) -> EventColumns:
    kinds = [name for name in SIGNALS.values() if name in signals]
    rows = [
        (number, kinds.index(name), weight, story.ts_ms)
        for number, story in enumerate(stories)
        for name, weight in story.weights.items()
        if name in signals
    ]
    item, kind, weight, ts_ms = (np.array(column) for column in zip(*rows, strict=True)) if rows else _NOTHING
    return EventColumns(
        kinds=kinds,
        items=[story.id for story in stories],
        users=[""],
        kind=kind.astype(np.uint16),
        item=item.astype(np.uint32),
        user=np.zeros(len(rows), dtype=np.uint32),
        weight=to_micro(weight.astype(np.float64)),
        ts_ms=ts_ms.astype(np.int64),
    )


_NOTHING: Final = (np.empty(0),) * 4
