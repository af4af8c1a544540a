"""The four layouts in which MovieLens is passed around, and which file of a folder is which.

| layout | ratings | items | users |
|---|---|---|---|
| atomic | `*.inter`, tab, header `user_id:token …` | `*.item` | `*.user` |
| 100k | `u.data`, tab, no header | `u.item`, `|`, a column for each genre | `u.user`, `|` |
| 1m, 10m | `ratings.dat`, `::`, no header | `movies.dat` | `users.dat` |
| latest | `ratings.csv`, header | `movies.csv` | none |

Each file may be gzipped, with or without `.gz` in its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from tidal.importers.rows import ImporterError, TableFile, open_table

DELIMITERS: Final = ("::", "\t", "|", ",")
HEADER_WORDS: Final = ("user_id", "userid", "item_id", "itemid", "movie_id", "movieid")

# Columns of the files that have no header, by the file's name.
HEADERLESS: Final = {
    "u.data": ("user", "item", "rating", "timestamp"),
    "ratings.dat": ("user", "item", "rating", "timestamp"),
    "u.user": ("user", "age", "gender", "occupation", "zip"),
    "users.dat": ("user", "gender", "age", "occupation", "zip"),
    "u.item": ("item", "title", "released", "video", "url"),
    "movies.dat": ("item", "title", "genres"),
}

# Names in headers, as the layouts have them, and ours.
COLUMN_NAMES: Final = {
    "user_id": "user", "userid": "user",
    "item_id": "item", "itemid": "item", "movie_id": "item", "movieid": "item",
    "rating": "rating", "timestamp": "timestamp",
    "movie_title": "title", "title": "title", "release_year": "year", "class": "genres", "genres": "genres",
    "age": "age", "gender": "gender", "occupation": "occupation", "zip_code": "zip", "zip": "zip",
}  # fmt: skip

RATINGS: Final = ("*.inter", "u.data", "ratings.dat", "ratings.csv")
ITEMS: Final = ("*.item", "u.item", "movies.dat", "movies.csv")
USERS: Final = ("*.user", "u.user", "users.dat")


class Columns(NamedTuple):
    """A file and where its columns are. `width` is how many fields a row must have at least."""

    table: TableFile
    position: dict[str, int]
    width: int


class MovieLensFiles(NamedTuple):
    """The files of one data set; the newest layouts have no users."""

    ratings: Columns
    items: Columns
    users: Columns | None


def find_files(folder: Path) -> MovieLensFiles:
    """The data set in `folder`.

    Raises ImporterError when the folder holds no known layout, or a file lacks a column that it must have.
    """
    if not folder.is_dir():
        raise ImporterError(f"{folder} is not a folder; give the one that holds the data set's files")
    ratings = _find(folder, RATINGS, required=("user", "item", "rating", "timestamp"))
    items = _find(folder, ITEMS, required=("item", "title"))
    if ratings is None or items is None:
        missing = RATINGS if ratings is None else ITEMS
        raise ImporterError(f"{folder} holds none of {', '.join(missing)} (or the same with .gz)")
    return MovieLensFiles(ratings, items, _find(folder, USERS, required=("user",)))


def _find(folder: Path, patterns: tuple[str, ...], required: tuple[str, ...]) -> Columns | None:
    for pattern in patterns:
        found = sorted([*folder.glob(pattern), *folder.glob(pattern + ".gz")])
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ImporterError(
                f"{folder} holds more than one file of a kind ({names}): keep one data set in it"
            )
        if found:
            return _columns(found[0], required)
    return None


def _columns(path: Path, required: tuple[str, ...]) -> Columns:
    table = open_table(path, DELIMITERS, HEADER_WORDS)
    if table.header is not None:
        names = [COLUMN_NAMES.get(name, "") for name in table.header]
    else:
        names = list(HEADERLESS.get(path.name.removesuffix(".gz"), ()))
    position = {name: index for index, name in enumerate(names) if name}
    missing = [name for name in required if name not in position]
    if missing:
        raise ImporterError(
            f"{path} has no column for {', '.join(missing)}; its first line is {table.header}"
        )
    return Columns(table, position, 1 + max(position[name] for name in required))
