"""Taobao's UserBehavior as Tidal sees it: items with a category, behaviours as signals, in the file's order.

| column | becomes |
|---|---|
| user, item | ids, as they stand |
| category | `category` of the item record; the last one that the file names |
| behaviour | `pv` a `view`, `cart` an `add_to_list`, `fav` a `save`, `buy` a `purchase` |
| timestamp | `ts`, from seconds |

The file has no header and no order in time. It is read in blocks and never held whole: what grows with it is
the list of its items. A row whose time or behaviour cannot be right is published as it is, so that the engine
refuses it into the dead-letter topic; a line that is no row at all is refused here.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from schemas.records.columns import EventColumns
from schemas.weights import WEIGHT_SCALE
from tidal.importers.refused_events import EventBounds, OddRow, raw_event
from tidal.importers.rows import ImporterError, Refusals, is_gzip
from tidal.publishing import Entry, Step

BEHAVIOURS: Final[Mapping[str, str]] = {
    "pv": "view", "cart": "add_to_list", "fav": "save", "buy": "purchase",
}  # fmt: skip
PATTERNS: Final = ("UserBehavior*.csv", "UserBehavior*.csv.gz", "*.csv", "*.csv.gz")
HEADER_WORDS: Final = ("user_id", "userid", "user")
WIDTH: Final = 5

# Rows of one step: some thousands of events for each partition make a record that is cheap to fold.
ROWS_PER_STEP: Final = 20_000
_BLOCK_BYTES: Final = 1 << 20
_MS: Final = 1000


class Rows(NamedTuple):
    """Consecutive good rows. lines i64[n]; users, items, categories: n texts; kinds: signals' names;
    ts_ms i64[n]."""

    lines: npt.NDArray[np.int64]
    users: Sequence[str]
    items: Sequence[str]
    categories: Sequence[str]
    kinds: Sequence[str]
    ts_ms: npt.NDArray[np.int64]


@dataclass(slots=True)
class Parsed:
    """Some lines of the file. `stop` is the number of the last one; the first line of the file is 1."""

    stop: int
    rows: Rows
    odd: list[OddRow] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)


class ItemRecords(Sequence[Entry]):
    """Item records made when they are asked for: a file may name millions of items."""

    def __init__(self, categories: Mapping[str, tuple[int, str]]) -> None:
        self._items = list(categories.items())

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> Entry: ...

    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...

    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [_record(*item) for item in self._items[at]]
        return _record(*self._items[at])


class Summary(NamedTuple):
    """What a first reading tells: how many lines and good events, which items, the newest good time in ms."""

    lines: int
    events: int
    items: ItemRecords
    newest_ms: int | None


def find_file(path: Path) -> Path:
    """The data file: `path` itself, or the one in that folder.

    Raises ImporterError when there is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ImporterError(f"{path} is neither a file nor a folder; give UserBehavior.csv or its folder")
    for pattern in PATTERNS:
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise ImporterError(f"{path} holds several files ({names}); name the one to import")
        if found:
            return found[0]
    raise ImporterError(f"{path} holds none of {', '.join(PATTERNS)}")


def survey(path: Path, bounds: EventBounds) -> Summary:
    """Reads the whole file once."""
    categories: dict[str, tuple[int, str]] = {}
    newest_ms: int | None = None
    lines = events = 0
    for parsed in parsed_blocks(path, bounds):
        rows, lines = parsed.rows, parsed.stop
        events += len(rows.ts_ms)
        named = zip(rows.lines.tolist(), rows.categories, strict=True)
        categories.update(zip(rows.items, named, strict=True))
        if len(rows.ts_ms):
            newest_ms = max(newest_ms or 0, int(rows.ts_ms.max()))
    return Summary(lines, events, ItemRecords(categories), newest_ms)


def steps(
    path: Path,
    bounds: EventBounds,
    signals: frozenset[str],
    shift_ms: int,
    refusals: Refusals,
    dead: Refusals,
    first: int,
) -> Iterator[Step]:
    """The events behind line `first`, their times moved by `shift_ms`; those of `signals` only.

    `refusals` is told of lines that are no rows, `dead` of rows that the engine will refuse: these keep
    their own time.
    """
    for parsed in parsed_blocks(path, bounds):
        if parsed.stop <= first:
            continue
        for line, reason in parsed.refused:
            if line > first:
                refusals.add(path, line, reason)
        odd = [row for row in parsed.odd if row.line > first]
        for row in odd:
            dead.add(path, row.line, row.reason)
        events = _columns(parsed.rows, signals, first, shift_ms)
        yield Step(parsed.stop, events, [row.event for row in odd])


def parsed_blocks(path: Path, bounds: EventBounds) -> Iterator[Parsed]:
    """The lines of the file in order, at most ROWS_PER_STEP at once."""
    line = 0
    for lines in _line_blocks(path):
        for start in range(0, len(lines), ROWS_PER_STEP):
            part = lines[start : start + ROWS_PER_STEP]
            yield _parse(part, line + 1, bounds)
            line += len(part)


def _line_blocks(path: Path) -> Iterator[list[str]]:
    rest = b""
    with gzip.open(path, "rb") if is_gzip(path) else path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            if lines:
                yield _text(b"\n".join(lines)).split("\n")
    if rest:
        yield [_text(rest)]


def _text(block: bytes) -> str:
    try:
        return block.decode()
    except UnicodeDecodeError:
        return block.decode("latin-1")


def _parse(lines: list[str], number: int, bounds: EventBounds) -> Parsed:
    """Lines from `number` on: all at once when each is a row as it should be, else one by one."""
    if all(line.count(",") == WIDTH - 1 for line in lines):
        fields = ",".join(lines).split(",")
        rows = _good_rows(np.arange(number, number + len(lines)), fields, bounds)
        if rows is not None:
            return Parsed(number + len(lines) - 1, rows)
    return _parse_each(lines, number, bounds)


def _parse_each(lines: list[str], number: int, bounds: EventBounds) -> Parsed:
    fields: list[str] = []
    good: list[int] = []
    parsed = Parsed(number + len(lines) - 1, _no_rows())
    for line, text in enumerate(lines, start=number):
        if not text.strip() or (line == 1 and _is_header(text)):
            continue
        row = [part.strip() for part in text.split(",")]
        if len(row) != WIDTH:
            parsed.refused.append((line, f"{len(row)} fields where {WIDTH} are needed"))
        elif not row[0] or not row[1]:
            parsed.refused.append((line, f"no {'item' if row[0] else 'user'} id"))
        elif (odd := _odd(line, row, bounds)) is not None:
            parsed.odd.append(odd)
        else:
            good.append(line)
            fields += row
    rows = _good_rows(np.array(good, dtype=np.int64), fields, bounds)
    assert rows is not None, "rows that were looked at one by one are good"
    parsed.rows = rows
    return parsed


def _good_rows(lines: npt.NDArray[np.int64], fields: list[str], bounds: EventBounds) -> Rows | None:
    """The rows that `fields` hold one after the other; None when one of them is not as it should be."""
    users, items = fields[0::WIDTH], fields[1::WIDTH]
    try:
        kinds = [BEHAVIOURS[behaviour] for behaviour in fields[3::WIDTH]]
        ts_ms = np.fromiter(map(int, fields[4::WIDTH]), np.int64, len(lines)) * _MS
    except (KeyError, ValueError, OverflowError):
        return None
    if not bounds.hold_times(ts_ms) or not bounds.hold_ids(users) or not bounds.hold_ids(items):
        return None
    return Rows(lines, users, items, fields[2::WIDTH], kinds, ts_ms)


def _odd(line: int, row: list[str], bounds: EventBounds) -> OddRow | None:
    user, item, _, behaviour, timestamp = row
    kind = BEHAVIOURS.get(behaviour, behaviour)
    try:
        ts_ms = int(timestamp) * _MS
    except ValueError:
        return OddRow(line, f"timestamp {timestamp!r} is no number", raw_event(kind, item, user, timestamp))
    reason = bounds.fault(item, user, ts_ms)
    if not reason and behaviour not in BEHAVIOURS:
        reason = f"behaviour {behaviour!r} is none of {', '.join(BEHAVIOURS)}"
    return OddRow(line, reason, raw_event(kind, item, user, ts_ms)) if reason else None


def _columns(rows: Rows, signals: frozenset[str], first: int, shift_ms: int) -> EventColumns:
    """The rows behind line `first` whose signal is declared, as columns."""
    names = [name for name in BEHAVIOURS.values() if name in signals]
    number = {name: index for index, name in enumerate(names)}
    kind = np.fromiter((number.get(name, -1) for name in rows.kinds), np.int64, len(rows.kinds))
    users, user = _dictionary(rows.users)
    items, item = _dictionary(rows.items)
    columns = EventColumns(
        kinds=names,
        items=items,
        users=users,
        kind=kind.astype(np.uint16),
        item=item,
        user=user,
        weight=np.full(len(kind), WEIGHT_SCALE, dtype=np.int64),
        ts_ms=rows.ts_ms + shift_ms,
    )
    wanted = (kind >= 0) & (rows.lines > first)
    return columns if wanted.all() else columns.take(np.flatnonzero(wanted))


def _dictionary(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.uint32]]:
    index: dict[str, int] = {}
    codes = np.fromiter((index.setdefault(text, len(index)) for text in texts), np.uint32, len(texts))
    return list(index), codes


def _no_rows() -> Rows:
    nothing = np.empty(0, dtype=np.int64)
    return Rows(nothing, [], [], [], [], nothing)


def _is_header(text: str) -> bool:
    return text.split(",")[0].strip().strip('"').lower() in HEADER_WORDS


def _record(item: str, named: tuple[int, str]) -> Entry:
    line, category = named
    return Entry(line, {"id": item, "category": category, "status": "active"})
