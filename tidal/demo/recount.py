"""The reference queries answered a second time, from the raw log, by plain Python.

Pages are lists of (item id, score), best first; equal scores are ordered by id. The weights of a profile are
read from the schema, where they are declared; all else is computed from the events and records themselves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from schemas.model import Profile, Term
from tidal.demo.history import History, dot, left
from tidal.demo.text_match import TextIndex

Page: TypeAlias = list[tuple[str, float]]

WINDOW_SECONDS: Final = {"1h": 3_600, "24h": 86_400, "7d": 604_800}

# Reciprocal rank fusion: 1 / (RRF_K + rank).
RRF_K: Final = 60

Values: TypeAlias = dict[str, float]


class Recount:
    """Answers as of one instant."""

    def __init__(self, history: History, at_ms: int) -> None:
        self._history = history
        self._at_ms = at_ms

    def trending(self, window: str, limit: int, users: set[str] | None = None) -> Page:
        """Items by velocity of views: events in the window's buckets, divided by its duration."""
        return ranked(self._velocities(window, users))[:limit]

    def search(self, text: str, window: str, limit: int, users: set[str]) -> Page:
        """Items that match a text and trend among some users, by the fused ranks of both."""
        velocity = self._velocities(window, users)
        scores = TextIndex(self._history.items).scores(text)
        matches = {id_: score for id_, score in scores.items() if id_ in velocity}
        by_text = ranks(ranked(matches))
        by_trend = ranks(ranked({id_: velocity[id_] for id_ in matches}))
        return ranked({id_: 1 / (RRF_K + by_text[id_]) + 1 / (RRF_K + by_trend[id_]) for id_ in matches})[
            :limit
        ]

    def for_you(self, user: str, window: str, limit: int, users: set[str], max_per_creator: int) -> Page:
        """What trends among some users and is unseen by one, ranked for that one, creators limited."""
        profile = self._history.schema.profile("for_you")
        seen = self._history.state(user, "seen")
        velocity = {id_: v for id_, v in self._velocities(window, users).items() if id_ not in seen}
        pool = next(ref.limit for ref in profile.sources if ref.source == "trending")
        candidates = dict(ranked(velocity)[:pool])
        scores = self._profile_scores(profile, user, candidates)
        return self._limited(ranked(scores), max_per_creator)[:limit]

    def _velocities(self, window: str, users: set[str] | None) -> Values:
        counts = self._history.counts("view", window, self._at_ms, users)
        return {
            id_: count / WINDOW_SECONDS[window] for id_, count in counts.items() if id_ in self._history.items
        }

    def _profile_scores(self, profile: Profile, user: str, candidates: Values) -> Values:
        scores = dict.fromkeys(candidates, 0.0)
        for term in profile.terms:
            values = self._term_values(term, user, candidates)
            for id_ in scores:
                scores[id_] += term.weight * values[id_]
        return scores

    def _term_values(self, term: Term, user: str, candidates: Values) -> Values:
        readers: dict[str, Callable[[Term, str, Values], Values]] = {
            "base": lambda _term, _user, given: min_max(given),
            "personalization": self._similarity,
            "relationship": self._affinity,
            "signal": self._signal,
            "penalty": self._signal,
            "recency": self._recency,
        }
        return readers[term.term](term, user, candidates)

    def _similarity(self, term: Term, user: str, candidates: Values) -> Values:
        """Cosine of the user's long-term vector and the item's."""
        history = self._history
        (slot,) = history.schema.entities["item"].embeddings
        preference = history.preference(user, slot)
        if preference is None:
            return dict.fromkeys(candidates, 0.0)
        return {id_: dot(preference, history.embedding(id_, slot)) for id_ in candidates}

    def _affinity(self, term: Term, user: str, candidates: Values) -> Values:
        """The weight of the user's edge to the item's creator, decayed to now."""
        half_life_ms = self._history.schema.relationships["interaction_weight"].half_life_ms
        edges = self._history.relationship(user, "interaction_weight")
        values = dict.fromkeys(candidates, 0.0)
        for id_ in candidates:
            edge = edges.get(self._history.items[id_]["creator"])
            if edge is not None:
                values[id_] = edge.weight * left(self._at_ms - edge.updated_ms, half_life_ms)
        return values

    def _signal(self, term: Term, user: str, candidates: Values) -> Values:
        """A decayed sum relative to the largest of the candidates, or a ratio of two counts."""
        signal = term.signal or "view"
        if term.read == "decay":
            definition = self._history.schema.signals[signal].decay
            half_life_ms = definition.half_lives_ms[definition.labels.index(term.half_life or "")]
            return from_zero(self._history.decayed(signal, half_life_ms, self._at_ms, candidates))
        assert term.read == "ratio", f"the demo's profile reads {term.read}"
        assert term.window is not None
        above = self._history.counts(signal, term.window, self._at_ms)
        below = self._history.counts(term.over or "", term.window, self._at_ms)
        return {id_: min(1.0, above[id_] / below[id_]) if below[id_] else 0.0 for id_ in candidates}

    def _recency(self, term: Term, user: str, candidates: Values) -> Values:
        """2^(−age / scale)."""
        assert term.curve == "exponential", f"the demo's profile has a curve {term.curve}"
        assert term.scale_ms is not None
        ages = {id_: self._at_ms - self._history.items[id_]["created_at"] for id_ in candidates}
        return {id_: 2.0 ** (-max(0, age - term.offset_ms) / term.scale_ms) for id_, age in ages.items()}

    def _limited(self, page: Page, max_per_creator: int) -> Page:
        """What exceeds the limit of its creator goes to the end, in its order."""
        taken: Counter[str] = Counter()
        kept: Page = []
        demoted: Page = []
        for id_, score in page:
            creator = self._history.items[id_]["creator"]
            (kept if taken[creator] < max_per_creator else demoted).append((id_, score))
            taken[creator] += 1
        return kept + demoted


def ranked(scores: Values) -> Page:
    """By score, the largest first, and then by id."""
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))


def ranks(page: Page) -> dict[str, int]:
    """Place of each id, from 1."""
    return {id_: rank for rank, (id_, _) in enumerate(page, start=1)}


def min_max(values: Values) -> Values:
    """Scaled to 0..1; all 1 where every value is the same."""
    if not values:
        return values
    low, high = min(values.values()), max(values.values())
    return {id_: (value - low) / (high - low) if high > low else 1.0 for id_, value in values.items()}


def from_zero(values: Values) -> Values:
    """Divided by the largest magnitude."""
    largest = max((abs(value) for value in values.values()), default=0.0)
    return {id_: value / largest if largest else 0.0 for id_, value in values.items()}


def differences(answered: Page, recounted: Page, tolerance: float) -> list[str]:
    """How an answered page differs from the recounted one; empty when they are equal.

    Scores may differ by `tolerance`, relative to the largest; items may change places only where their scores
    are that close.
    """
    allowed = tolerance * max((abs(score) for _, score in recounted), default=0.0)
    own = dict(recounted)
    found = []
    if len(answered) != len(recounted):
        found.append(f"{len(answered)} results where the recount has {len(recounted)}")
    for rank, ((id_, score), (expected_id, expected)) in enumerate(zip(answered, recounted, strict=False), 1):
        if not math.isclose(score, expected, rel_tol=0.0, abs_tol=allowed):
            found.append(f"rank {rank}: {id_} has {score!r}, the recount {expected_id} with {expected!r}")
        elif id_ != expected_id and abs(own.get(id_, math.inf) - expected) > allowed:
            found.append(f"rank {rank}: {id_}, the recount has {expected_id} there")
    return found
