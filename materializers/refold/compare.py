"""Names every difference between what tables say and what a clean fold of the log says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from materializers.facts import EntityRef, Fact

_SHOWN_CHARACTERS: Final = 200


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on which the tables and the log disagree.

    Attributes:
        view: the view, or the shard whose own table it is.
        key: what it is about, in words.
        stored, expected: what the table says and what the log says; None = nothing.
    """

    view: str
    table: str
    partition: int
    key: str
    stored: str | None
    expected: str | None


NameOf = Callable[[int], str | None]
"""The id behind an EntityId, None if unknown."""


def differences(
    view: str, partition: int, stored: Iterable[Fact], expected: Iterable[Fact], name_of: NameOf
) -> Iterator[Difference]:
    """Every fact that only one side has, or on which they disagree.

    Holds the expected facts of one view and partition in memory.
    """
    wanted: dict[tuple[Any, ...], Fact] = {(fact.table, *fact.key): fact for fact in expected}

    def difference(fact: Fact, mine: Fact | None, theirs: Fact | None) -> Difference:
        return Difference(
            view=view,
            table=fact.table,
            partition=partition,
            key=" ".join(_word(part, name_of) for part in fact.key),
            stored=_shown(mine),
            expected=_shown(theirs),
        )

    for fact in stored:
        other = wanted.pop((fact.table, *fact.key), None)
        if other is None or not fact.agrees(other):
            yield difference(fact, fact, other)
    for fact in wanted.values():
        yield difference(fact, None, fact)


def _word(part: Any, name_of: NameOf) -> str:
    if isinstance(part, EntityRef):
        return name_of(part.entity_id) or str(part)
    return str(part)


def _shown(fact: Fact | None) -> str | None:
    if fact is None:
        return None
    text = fact.says()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
