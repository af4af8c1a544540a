"""The schema that Tidal has when it is given none."""

from __future__ import annotations

from functools import cache

from schemas.loading import load_schema
from schemas.model import Schema


@cache
def default_schema() -> Schema:
    """Items, users, creators; six signals; dimensions locale, language, age; ``trending``, ``for_you``."""
    return load_schema({})
