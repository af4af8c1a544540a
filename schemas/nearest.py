"""What a misspelt name was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, names: Iterable[str], likeness_min: float = 0.6) -> str | None:
    """The one of ``names`` that is most like ``name``, None where none is as like it as 0 … 1 asks."""
    near = get_close_matches(str(name), list(names), 1, likeness_min)
    return near[0] if near else None
