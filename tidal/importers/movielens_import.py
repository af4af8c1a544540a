"""`tidal import movielens`: users, then films, then ratings, into a running site."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from schemas.model import EmbeddingSlot, Schema
from tidal.importers.imported import Imported
from tidal.importers.movielens import (
    DIMENSIONS,
    SIGNALS,
    Ratings,
    events_of,
    read_items,
    read_ratings,
    read_users,
)
from tidal.importers.movielens_files import find_files
from tidal.importers.resume import ResumeFile
from tidal.importers.rows import Refusals
from tidal.publishing import ROWS_PER_STEP, Publisher, Step

SCHEMA_FILE: Final = Path(__file__).parent / "schemas" / "movielens.yaml"
EMBEDDING_SLOT: Final = "content"


def import_movielens(
    folder: Path, schema: Schema, publisher: Publisher, resume: ResumeFile, *, shift_to_now: bool
) -> Imported:
    """Reads the data set in `folder` and publishes it in the terms of the running `schema`.

    Users come first, so that their ratings are counted for their cohorts; films next, so that no rating has
    to wait for its film. Raises ImporterError when the folder is not a MovieLens data set.
    """
    files = find_files(folder)
    refusals = Refusals()
    users = list(read_users(files, refusals))
    items = list(read_items(files, embedding_slot(schema), refusals))
    ratings = read_ratings(files, refusals)
    if shift_to_now:
        ratings = ratings.shifted_to(resume.newest_ms(time.time_ns() // 1_000_000))
    declared = frozenset(schema.signals)
    if files.users is not None:
        publisher.publish_records("user", users, partial(refusals.add, files.users.table.path))
    publisher.publish_records("item", items, partial(refusals.add, files.items.table.path))
    publisher.publish_events("ratings", len(ratings), partial(_steps, ratings, declared))
    counts = {"users": len(users), "items": len(items), "ratings": len(ratings)}
    return Imported(counts, refusals, dead=Refusals())


def _steps(ratings: Ratings, declared: frozenset[str], first: int) -> Iterator[Step]:
    for start in range(first, len(ratings), ROWS_PER_STEP):
        stop = min(start + ROWS_PER_STEP, len(ratings))
        yield Step(stop, events_of(ratings, start, stop, declared))


def embedding_slot(schema: Schema) -> EmbeddingSlot | None:
    """The slot that films' vectors go to: `content`, else the only one there is, else none."""
    slots = schema.entities["item"].embeddings
    if EMBEDDING_SLOT in slots:
        return slots[EMBEDDING_SLOT]
    return next(iter(slots.values())) if len(slots) == 1 else None


def warnings_about(schema: Schema) -> list[str]:
    """What the running schema lacks of what MovieLens offers, and what that means; empty if nothing."""
    said = [
        f"the running schema declares no signal {name!r}: ratings are imported without it"
        for name in SIGNALS
        if name not in schema.signals
    ]
    dimensions = schema.entities["user"].dimensions
    said += [
        f"the running schema declares no dimension {name!r}: cohorts by {name} cannot be asked for"
        for name in DIMENSIONS
        if name not in dimensions
    ]
    if embedding_slot(schema) is None:
        said.append("the running schema has no embedding slot 'content': pages will not be personal")
    if said:
        said.append(f"a schema with all of it is shipped: tidal up --schema {_shown(SCHEMA_FILE)}")
    return said


def _shown(path: Path) -> Path:
    working_directory = Path.cwd()
    return path.relative_to(working_directory) if path.is_relative_to(working_directory) else path
