"""Names of the ranking that schemas may use: roles of signals, and sources that need some of them.

A sort mode speaks of likes or shares; which signals these are is declared under ``roles``, never in code.
"""

from __future__ import annotations

from typing import Final

ROLES: Final = (
    "viewed",
    "liked",
    "disliked",
    "shared",
    "saved",
    "commented",
    "completed",
    "dwelt",
)
"""What a signal may stand for in a sort mode."""

ROLES_OF_SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "hot": ("liked", "disliked"),
    "best": ("liked", "disliked"),
    "controversial": ("liked", "disliked"),
    "completion_rate": ("completed",),
    "dwell": ("dwelt",),
    "hidden_gems": ("liked", "disliked", "viewed"),
    "discussed": ("commented", "viewed"),
}
"""The roles that a source counts; every other one counts the signal of its profile or query, or none."""

MEASURED_SOURCES: Final = (
    "trending_relative",
    "rising",
    "top",
    "hacker",
    "evergreen",
    "creator_popularity",
    "oldest",
    "random",
    *ROLES_OF_SOURCES,
)
"""Sources that score every item of the catalog."""
