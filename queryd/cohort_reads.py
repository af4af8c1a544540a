"""What the engine knows of a cohort besides its counts: what it means, how large it is, what is private.

A cohort that is asked for goes through here, whatever asks: ``parsed`` (names against the schema), then
``refuse_small`` (``min_cohort_size``), and what its answer must say comes from ``warnings``.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Final, NamedTuple

from queryd.errors import CohortTooSmall
from queryd.hot.columns import HotColumns
from queryd.hot.population import Population, names_segment
from queryd.language.parse import from_predicate_error
from schemas.contradiction import is_contradiction
from schemas.errors import PredicateError, shown
from schemas.model import Schema
from schemas.predicate import Comparison, Predicate, check, leaves, parse_predicate, to_text
from schemas.predicate_match import as_text

_SIZES_MAX: Final = 64
_SEGMENT_LIFE_S: Final = 1.0
_NAMES_COMPARED_MAX: Final = 1_000
_NEAR_MAX: Final = 5
_VALUES_MAX: Final = 64  # of one cohort that are looked up
_SAID_MAX: Final = 3  # of those that nobody has had
_SENSE_MAX: Final = 1_024


class _Size(NamedTuple):
    """Users counted at a time on the monotonic clock, at a version of the population."""

    counted_s: float
    version: int
    users: int


class CohortReads:
    """Cohorts under one schema, over the columns and the users of one engine."""

    def __init__(self, schema: Schema, hot: HotColumns, population: Population) -> None:
        self._schema = schema
        self._hot = hot
        self._population = population
        self._sizes: OrderedDict[Predicate, _Size] = OrderedDict()
        self._empty: OrderedDict[Predicate, bool] = OrderedDict()

    def parsed(self, text: str, path: str = "cohort") -> Predicate:
        """The checked predicate of ``text``: a declared name, or a predicate over dimensions.

        Raises:
            QueryError: it does not parse, or names what the schema lacks; ``path`` says which parameter.
            LimitExceeded: it is nested deeper than the schema allows.
        """
        try:
            predicate = parse_predicate(text, self._schema.limits.max_predicate_depth)
            return check(predicate, self._schema, "cohort")
        except PredicateError as error:
            raise from_predicate_error(error, path=path) from None

    async def size(self, predicate: Predicate) -> int:
        """Distinct users who are in a cohort now."""
        known = self._sizes.get(predicate)
        if known is None or not self._holds(predicate, known):
            await self._population.load()
            known = _Size(time.monotonic(), self._population.version, self._population.count(predicate))
        self._sizes[predicate] = known
        self._sizes.move_to_end(predicate)
        if len(self._sizes) > _SIZES_MAX:
            self._sizes.popitem(last=False)
        return known.users

    def _holds(self, predicate: Predicate, known: _Size) -> bool:
        """Whether a size is that of now; of segments, which change by themselves, of a second ago at most."""
        if known.version != self._population.version:
            return False
        return not names_segment(predicate) or time.monotonic() - known.counted_s < _SEGMENT_LIFE_S

    async def refuse_small(self, *predicates: Predicate) -> None:
        """Nothing is told of a cohort with fewer users than the schema allows.

        That nobody can be in one that contradicts itself is told: it follows from the question alone.

        Raises:
            CohortTooSmall: one of them has.
        """
        users_min = self._schema.limits.min_cohort_size
        if not users_min:
            return
        for predicate in predicates:
            if await self.size(predicate) < users_min and not self._contradicts_itself(predicate):
                raise CohortTooSmall(shown(to_text(predicate)), users_min, self._doubts(predicate))

    def warnings(self, predicate: Predicate) -> list[str]:
        """Why a cohort that can be asked for may not be the one that was meant."""
        if self._contradicts_itself(predicate):
            return [
                f"the cohort {shown(to_text(predicate))} contradicts itself: nobody can be in it, "
                "and every count of it is 0"
            ]
        found = self._doubts(predicate)
        if not found and not self._hot.profiles.mask(predicate).any():
            found.append("nobody who sent a signal has ever been in this cohort")
        return found

    def _contradicts_itself(self, predicate: Predicate) -> bool:
        known = self._empty.pop(predicate, None)
        if known is None:
            labels = {name: dimension.labels for name, dimension in self._schema.dimensions.items()}
            known = is_contradiction(predicate, labels)
        self._empty[predicate] = known
        if len(self._empty) > _SENSE_MAX:
            self._empty.popitem(last=False)
        return known

    def _doubts(self, predicate: Predicate) -> list[str]:
        """The first few of ``_unheard_of``: each hint takes up to two milliseconds."""
        return list(islice(self._unheard_of(predicate), _SAID_MAX))

    def _unheard_of(self, predicate: Predicate) -> Iterator[str]:
        """Values that no user has had in a dimension that does not list its values: typing errors, mostly.

        Where small cohorts are private, nobody and a few are the same: neither is told from the other, and no
        value is named that only a few have.
        """
        users_min = self._schema.limits.min_cohort_size
        named = islice(_named_values(predicate, self._schema), _VALUES_MAX)
        for dimension, value in dict.fromkeys(named):
            if users_min:
                if self._users_with(dimension, value) < users_min:
                    hint = self._meant(dimension, value, users_min)
                    yield f"fewer than {users_min:,} users have {dimension} {shown(value)}{hint}"
            elif not self._is_known(dimension, value):
                who = "no user" if self._population.loaded else "nobody who sent a signal"
                yield f"{who} has had {dimension} {shown(value)}{self._meant(dimension, value, 0)}"

    def _is_known(self, dimension: str, value: str) -> bool:
        return self._hot.profiles.knows(dimension, value) or self._population.knows(dimension, value)

    def _users_with(self, dimension: str, value: str) -> int:
        return self._population.count(Comparison(dimension, "=", value))

    def _meant(self, dimension: str, value: str, users_min: int) -> str:
        known = dict.fromkeys([*self._hot.profiles.values(dimension), *self._population.values(dimension)])
        known.pop(value, None)
        for near in near_values(value, list(known)):
            if not users_min or self._users_with(dimension, near) >= users_min:
                return f"; did you mean {shown(near)}?"
        return ""


def near_values(value: str, known: Sequence[str]) -> list[str]:
    """The known values that ``value`` was probably meant to be, whatever its case, the nearest first."""
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    wanted = value.casefold()
    if wanted in folded:
        return [folded[wanted]]
    if len(folded) > _NAMES_COMPARED_MAX:
        return []
    close = get_close_matches(wanted, list(folded), n=_NEAR_MAX, cutoff=0.5)
    return [folded[name] for name in close]


def _named_values(predicate: Predicate, schema: Schema) -> Iterator[tuple[str, str]]:
    """Dimension and value, as text, of each comparison with a dimension that does not list its values."""
    for leaf in leaves(predicate):
        if not isinstance(leaf, Comparison) or leaf.op not in ("=", "!=", "IN"):
            continue
        if schema.dimensions[leaf.field].buckets:
            continue
        values = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        yield from ((leaf.field, as_text(value)) for value in values if value is not None)
