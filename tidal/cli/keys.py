"""The keys that the settings name."""

from __future__ import annotations

from pathlib import Path

from queryd.http.access import Keys
from schemas.settings import Settings


def keys_of(settings: Settings) -> Keys:
    """The configured keys; none without a key file. Raises AccessError when the file cannot be used."""
    return Keys.from_file(Path(settings.queryd.keys_file)) if settings.queryd.keys_file else Keys()
