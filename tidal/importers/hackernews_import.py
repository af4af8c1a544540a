"""`tidal import hackernews`: authors, then stories, then their votes and comments, into a running site."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from schemas.model import Schema
from tidal.importers import hackernews
from tidal.importers.imported import Imported
from tidal.importers.refused_events import EventBounds
from tidal.importers.resume import ResumeFile
from tidal.importers.rows import Refusals
from tidal.publishing import Publisher


def import_hackernews(
    path: Path, schema: Schema, publisher: Publisher, resume: ResumeFile, *, shift_to_now: bool
) -> Imported:
    """Reads the file (or the only one in the folder) and publishes it. Raises ImporterError."""
    path = hackernews.find_file(path)
    refusals, dead = Refusals(), Refusals()
    stories = hackernews.read_stories(path, EventBounds.of(schema.limits), refusals)
    if shift_to_now:
        stories = stories.shifted_to(resume.newest_ms(time.time_ns() // 1_000_000))
    authors, items = hackernews.creators(stories.good), hackernews.items(stories.good)
    publisher.publish_records("creator", authors, partial(refusals.add, path))
    publisher.publish_records("item", items, partial(refusals.add, path))
    steps = partial(hackernews.steps, path, stories, frozenset(schema.signals), dead)
    publisher.publish_events("stories", len(items), steps)
    return Imported({"creators": len(authors), "items": len(items)}, refusals, dead)
