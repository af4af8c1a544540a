"""MovieLens as Tidal sees it: users with dimensions, films with genres and vectors, ratings as signals.

| row | becomes |
|---|---|
| user | a user record: `age` (years), `gender`, `occupation`, `zip_code` |
| film | an item record: `title`, `tags` and `category` (genres), `release_year`, `created_at`, an embedding |
| rating | a `view`, and a `rate` with the stars as weight; from 4 stars a `like`, up to 2 a `skip` |

Each signal is written only where the running schema declares it. Ratings are published in the order of their
time, so that each user's history has the order in which it happened. Ids are those of the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.model import EmbeddingSlot
from schemas.records.columns import EventColumns
from schemas.weights import to_micro
from tidal.importers.genre_vectors import genre_vector
from tidal.importers.movielens_files import Columns, MovieLensFiles
from tidal.importers.rows import Refusals, Row
from tidal.publishing import Entry

SIGNALS: Final = ("view", "rate", "like", "skip")
DIMENSIONS: Final = ("gender", "age", "occupation")

LIKED_FROM_STARS: Final = 4.0
SKIPPED_TO_STARS: Final = 2.0
STARS: Final = (0.5, 5.0)

TITLE_WITH_YEAR: Final = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*$")

# Genres of the flags at the end of an `u.item` row, in their order.
FLAG_GENRES: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
FLAGS_START: Final = 5
NO_GENRE: Final = "(no genres listed)"

# The 1m layout gives the lowest age of a group, and 1 for everybody under 18: that is no age.
LOWEST_AGE: Final = 5


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings in order of time. users, items: dictionaries that user u32[n] and item u32[n] index.

    stars: f64[n]. ts_ms: i64[n].
    """

    users: list[str]
    items: list[str]
    user: npt.NDArray[np.uint32]
    item: npt.NDArray[np.uint32]
    stars: npt.NDArray[np.float64]
    ts_ms: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stars)

    def shifted_to(self, newest_ms: int) -> Ratings:
        """The same ratings with the newest one at `newest_ms`, distances kept."""
        if not len(self):
            return self
        return replace(self, ts_ms=self.ts_ms + (newest_ms - int(self.ts_ms.max())))


def read_users(files: MovieLensFiles, refusals: Refusals) -> Iterator[Entry]:
    """User records, in the order of the file; none when the layout has no users."""
    if files.users is None:
        return
    for row in _complete_rows(files.users, refusals):
        record: dict[str, Any] = {"id": _field(row, files.users, "user")}
        age = _number(_field(row, files.users, "age"))
        if age is not None and age >= LOWEST_AGE:
            record["age"] = int(age)
        for column, name in (("gender", "gender"), ("occupation", "occupation"), ("zip", "zip_code")):
            if value := _field(row, files.users, column):
                record[name] = value
        yield Entry(row.line, record)


def read_items(files: MovieLensFiles, slot: EmbeddingSlot | None, refusals: Refusals) -> Iterator[Entry]:
    """Item records, in the order of the file, each with an embedding when the schema has a slot for it."""
    for row in _complete_rows(files.items, refusals):
        item = _field(row, files.items, "item")
        title, year = _title_and_year(row, files.items)
        genres = _genres(row, files.items)
        record: dict[str, Any] = {"id": item, "title": title, "tags": genres, "status": "active"}
        if genres:
            record["category"] = genres[0]
        if year is not None:
            record["release_year"] = year
            record["created_at"] = _year_start_ms(year)
        if slot is not None:
            record["embeddings"] = {slot.name: genre_vector(item, genres, year, slot.dim)}
        yield Entry(row.line, record)


def read_ratings(files: MovieLensFiles, refusals: Refusals) -> Ratings:
    """All ratings, sorted by time; ratings of one second stay in the order of the file."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows: list[tuple[int, int, float, int]] = []
    columns = files.ratings
    for row in _complete_rows(columns, refusals):
        stars = _number(_field(row, columns, "rating"))
        seconds = _number(_field(row, columns, "timestamp"))
        if stars is None or not STARS[0] <= stars <= STARS[1]:
            reason = (
                f"rating {_field(row, columns, 'rating')!r} is not a number from {STARS[0]} to {STARS[1]}"
            )
            refusals.add(columns.table.path, row.line, reason)
        elif seconds is None or seconds < 0:
            reason = f"timestamp {_field(row, columns, 'timestamp')!r} is not a number of seconds since 1970"
            refusals.add(columns.table.path, row.line, reason)
        else:
            user = users.setdefault(_field(row, columns, "user"), len(users))
            item = items.setdefault(_field(row, columns, "item"), len(items))
            rows.append((user, item, stars, int(seconds * 1000)))
    table = np.array(rows, dtype=[("user", "u4"), ("item", "u4"), ("stars", "f8"), ("ts_ms", "i8")])
    table = table[np.argsort(table["ts_ms"], kind="stable")]
    return Ratings(list(users), list(items), table["user"], table["item"], table["stars"], table["ts_ms"])


def events_of(ratings: Ratings, start: int, stop: int, signals: frozenset[str]) -> EventColumns:
    """The signals of the ratings [start, stop): those of one rating stand together, in the order of SIGNALS.

    `signals` are the names that the running schema declares; the others are left out.
    """
    stars = ratings.stars[start:stop]
    every = np.ones(len(stars), dtype=bool)
    chosen = {
        "view": every,
        "rate": every,
        "like": stars >= LIKED_FROM_STARS,
        "skip": stars <= SKIPPED_TO_STARS,
    }
    kinds: list[str] = [name for name in SIGNALS if name in signals]
    written = np.array([chosen[name] for name in kinds], dtype=bool).reshape(len(kinds), len(stars)).T
    row, kind = np.nonzero(written)
    is_rate = np.array([name == "rate" for name in kinds], dtype=bool)
    weight = np.where(is_rate[kind], stars[row], 1.0)
    return EventColumns(
        kinds=kinds,
        items=ratings.items,
        users=ratings.users,
        kind=kind.astype(np.uint16),
        item=ratings.item[start:stop][row],
        user=ratings.user[start:stop][row],
        weight=to_micro(weight),
        ts_ms=ratings.ts_ms[start:stop][row],
    )


def _complete_rows(columns: Columns, refusals: Refusals) -> Iterator[Row]:
    """Rows with enough fields and an id in each column of ids; the others are refused."""
    id_columns = [name for name in ("user", "item") if name in columns.position]
    for row in columns.table.rows():
        if len(row.fields) < columns.width:
            reason = f"{len(row.fields)} fields where {columns.width} are needed"
            refusals.add(columns.table.path, row.line, reason)
            continue
        empty = [name for name in id_columns if not _field(row, columns, name)]
        if empty:
            refusals.add(columns.table.path, row.line, f"no {empty[0]} id")
            continue
        yield row


def _field(row: Row, columns: Columns, name: str) -> str:
    index = columns.position.get(name)
    return row.fields[index].strip() if index is not None and index < len(row.fields) else ""


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _title_and_year(row: Row, columns: Columns) -> tuple[str, int | None]:
    title = _field(row, columns, "title")
    if match := TITLE_WITH_YEAR.match(title):
        return match["title"], int(match["year"])
    year = _number(_field(row, columns, "year"))
    return title, int(year) if year is not None else None


def _genres(row: Row, columns: Columns) -> list[str]:
    if "genres" in columns.position:
        text = _field(row, columns, "genres")
        return [] if text == NO_GENRE else text.replace("|", " ").split()
    flags = row.fields[FLAGS_START : FLAGS_START + len(FLAG_GENRES)]
    return [genre for genre, flag in zip(FLAG_GENRES, flags, strict=False) if flag.strip() == "1"]


def _year_start_ms(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000)
