"""`tidal import taobao`: items with their categories, then the behaviours, into a running site."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from schemas.model import Schema
from tidal.importers import taobao
from tidal.importers.imported import Imported
from tidal.importers.refused_events import EventBounds
from tidal.importers.resume import ResumeFile
from tidal.importers.rows import Refusals
from tidal.publishing import Publisher


def import_taobao(
    path: Path, schema: Schema, publisher: Publisher, resume: ResumeFile, *, shift_to_now: bool
) -> Imported:
    """Reads the file (or the one in the folder) twice: for its items, then for its events.

    Items come first, so that no event has to wait for its item. Raises ImporterError when there is no file.
    """
    path = taobao.find_file(path)
    bounds = EventBounds.of(schema.limits)
    refusals, dead = Refusals(), Refusals()
    found = taobao.survey(path, bounds)
    shift_ms = 0
    if shift_to_now and found.newest_ms is not None:
        shift_ms = resume.newest_ms(time.time_ns() // 1_000_000) - found.newest_ms
    publisher.publish_records("item", found.items, partial(refusals.add, path))
    steps = partial(taobao.steps, path, bounds, frozenset(schema.signals), shift_ms, refusals, dead)
    publisher.publish_events("events", found.lines, steps)
    return Imported({"items": len(found.items), "events": found.events}, refusals, dead)
