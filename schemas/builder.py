"""A schema made in Python: the same model, the same rules, the same defaults as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from schemas.loading import load_schema
from schemas.model import Schema


class SchemaBuilder:
    """Collects declarations; ``build`` validates all of them at once.

    >>> schema = (
    ...     SchemaBuilder("films")
    ...     .user(
    ...         fields={"gender": "keyword", "age": "int"},
    ...         dimensions={"gender": {}, "age": {"buckets": {"25-34": [25, 34]}}},
    ...     )
    ...     .signal("rate", category="positive", polarity=1, windows=["all_time"], preference=0.2)
    ...     .cohort("young_women", "gender:F, age:25-34")
    ...     .build()
    ... )

    Durations are text (``"24h"``), values are those of the document form.
    """

    def __init__(self, name: str = "tidal", version: int = 1, defaults: bool = True) -> None:
        """``defaults=False`` starts from nothing instead of the default schema."""
        self._document: dict[str, Any] = {"name": name, "version": version}
        if not defaults:
            self._document["extends"] = "none"

    def item(self, **parts: Any) -> Self:
        """What items have: ``fields={"title": "text"}``, ``embeddings={"content": {"dim": 384}}``."""
        return self._entity("item", parts)

    def user(self, **parts: Any) -> Self:
        """What users have: ``fields``, ``dimensions={"age": {"buckets": {"18-24": [18, 24]}}}``."""
        return self._entity("user", parts)

    def creator(self, **parts: Any) -> Self:
        """What creators have: ``fields``, ``embeddings``, ``strict``."""
        return self._entity("creator", parts)

    def signal(self, name: str, **parts: Any) -> Self:
        """A kind of event.

        ``category``, ``polarity``, ``decay={"exponential": ["24h"]}``, ``windows``, ``state``, ``clears``,
        ``relationship={"interaction_weight": 0.1}``, ``preference``, ``value_range``, ``dedup``,
        ``distinct_users``.
        """
        return self._add("signals", name, parts)

    def relationship(self, name: str, **parts: Any) -> Self:
        """An edge type: ``explicit``, ``hides``, ``half_life``, and ``target`` of an implicit one."""
        return self._add("relationships", name, parts)

    def state(self, *names: str) -> Self:
        """User states: sets of items that signals put into and take out of."""
        self._document.setdefault("states", []).extend(names)
        return self

    def co_engagement(self, *states: str) -> Self:
        """States whose members are indexed by item, so that users who share items are found."""
        self._document["co_engagement"] = list(states)
        return self

    def role(self, name: str, *signals: str) -> Self:
        """What the sort modes count as ``liked``, ``viewed`` … (``schemas.sort_names.ROLES``)."""
        return self._add("roles", name, list(signals))

    def segment(self, name: str, text: str) -> Self:
        """A behavioural segment: ``"count(like, category = jazz, 30d) >= 5"``."""
        return self._add("segments", name, text)

    def cohort(self, name: str, predicate: str) -> Self:
        """A named cohort: ``"locale:US, age:18-24"``."""
        return self._add("cohorts", name, predicate)

    def profile(self, name: str, **parts: Any) -> Self:
        """One version of a ranking: ``extends``, ``version``, ``window``, ``sources``, ``terms`` …

        Calling it again with another ``version`` adds that version.
        """
        profiles = self._document.setdefault("profiles", {})
        profiles.setdefault(name, []).append(_plain(parts))
        return self

    def limits(self, **limits: int) -> Self:
        """Limits by name, as in ``schemas.model.Limits``."""
        self._document.setdefault("limits", {}).update(limits)
        return self

    def document(self) -> dict[str, Any]:
        """What was declared so far, in the document form."""
        return dict(self._document)

    def build(self) -> Schema:
        """The schema.

        Raises:
            SchemaError: with every problem.
        """
        return load_schema(self._document)

    def _entity(self, kind: str, parts: Mapping[str, Any]) -> Self:
        self._document.setdefault("entities", {}).setdefault(kind, {}).update(_plain(parts))
        return self

    def _add(self, section: str, name: str, value: Any) -> Self:
        self._document.setdefault(section, {})[name] = _plain(value)
        return self


def _plain(value: Any) -> Any:
    """Tuples and other sequences as lists, mappings as dicts: what a parsed document would hold."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(entry) for entry in value]
    return value
