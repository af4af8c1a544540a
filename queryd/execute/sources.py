"""Sources: where candidates come from. Each returns its best among the items that the filters allow."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from queryd.errors import QueryError
from queryd.execute.candidates import NOTHING, Retrieved
from queryd.execute.context import Context, TextHits
from queryd.execute.filters import of_creators
from queryd.execute.measure import ByCount, ByScore, Measure, everything
from queryd.execute.measures import MEASURES, counted
from queryd.hot.arrays import F32, F64, U32, Mask
from queryd.hot.embeddings import EmbeddingMatrix
from queryd.hot.fields import ABSENT_TIME
from queryd.ranking.order import top

EXACT_NEIGHBOURS_MAX = 20_000
"""Up to so many allowed items, exact search over the columns beats the index and cannot lose a hit."""
TEXT_HITS_MAX = 10_000
TEXT_AMONG_MAX = 50_000
TEXT_INSIDE_MAX = 5_000
"""Up to so many allowed items, restricting the search costs less (5 ms) than filtering a broad one's hits."""
_SCANNED_TITLES_MAX = 2_000
_ASKED_TIMES_MAX = 3
_SHARE_MIN = 0.05
_HEADROOM = 1.25  # asking a quarter more than the filters should leave costs less than asking twice


class Source(Protocol):
    """Produces candidates with a source score."""

    name: str

    def enable(self, context: Context) -> bool:
        """Whether it can produce anything for this query."""
        ...

    def retrieve(self, context: Context, limit: int) -> Retrieved:
        """The best ``limit`` allowed items, score descending, then id."""
        ...


class Measured:
    """The best of what a measure concerns."""

    def __init__(self, measure: Measure) -> None:
        self.name = measure.name
        self._measure = measure

    def enable(self, context: Context) -> bool:
        return True

    def retrieve(self, context: Context, limit: int) -> Retrieved:
        of, measure = counted(context), self._measure
        if isinstance(measure, ByScore):  # whom it concerns is known once everybody is scored
            scores = measure.score(context, of, everything(context)).scores
            return _best(np.flatnonzero((scores > 0) & context.allowed), scores, limit, context)
        if isinstance(measure, ByCount):
            found, total = measure.leaders(context, of, limit)
        else:
            found = np.flatnonzero(measure.qualifying(context, of) & context.allowed)
            total = len(found)
        rows = found.astype(np.uint32)
        scored = measure.score(context, of, rows)
        chosen = top(rows, scored.scores, limit, context.hot.items.ordinals)
        return Retrieved(rows[chosen], scored.scores[chosen], total, notes=scored.notes)


class Following:
    """Items of followed creators, newest first."""

    name = "following"

    def enable(self, context: Context) -> bool:
        return context.user is not None

    def retrieve(self, context: Context, limit: int) -> Retrieved:
        assert context.user is not None
        followed = of_creators(context.users.followed(context.user, context.at_ms), context)
        created = context.hot.items.created_column()
        scores = np.where(created == ABSENT_TIME, 0, created).astype(np.float64)
        return _best(np.flatnonzero(followed & context.allowed), scores, limit, context)


class PreferenceNeighbours:
    """Nearest to what the user has come to prefer (long-term vector); a user without one has none."""

    name = "preference_neighbours"

    def enable(self, context: Context) -> bool:
        return bool(context.preferences)

    def retrieve(self, context: Context, limit: int) -> Retrieved:
        slot, preference = next(iter(context.preferences.items()))
        return neighbours(context, slot, preference.long, limit)


class ItemNeighbours:
    """Nearest to an item (SIMILAR TO, LIKE) or to a given vector; the item itself is left out."""

    name = "item_neighbours"

    def enable(self, context: Context) -> bool:
        return bool(context.hot.items.embeddings)

    def retrieve(self, context: Context, limit: int) -> Retrieved:
        query, within = context.plan.query, context.plan.within
        slot, matrix = next(iter(context.hot.items.embeddings.items()))
        if query.vector:
            return neighbours(context, slot, _unit(query.vector, matrix), limit)
        target = query.like if query.like is not None else within.target if within is not None else None
        ordinal = None if target is None else context.hot.items.ordinals.find(target)
        known = np.array([] if ordinal is None else [ordinal], dtype=np.uint32)
        if not matrix.has(known).all() or not len(known):
            context.report.warn(
                f"the item {target!r} has no embedding in slot {slot!r}: it has no neighbours"
            )
            return NOTHING
        context.allowed[known] = False
        return neighbours(context, slot, matrix.rows(known)[0], limit)


class Text:
    """Matches of the search text; score = BM25."""

    name = "text"

    def enable(self, context: Context) -> bool:
        return context.plan.query.text is not None

    def retrieve(self, context: Context, limit: int) -> Retrieved:
        text = context.plan.query.text
        assert text is not None
        why = context.text.unavailable
        if why is not None:
            context.report.degrade("text", why)
            return _scanned_titles(context, text)
        hits = _matches(context, text)
        for warning in hits.warnings:
            context.report.warn(warning)
        allowed = context.allowed[hits.ordinals]
        ordinals, scores = hits.ordinals[allowed], hits.scores[allowed]
        return Retrieved(ordinals, scores, len(ordinals), exact=hits.total <= TEXT_HITS_MAX)


_OTHERS: tuple[Source, ...] = (Following(), PreferenceNeighbours(), ItemNeighbours(), Text())
SOURCES: dict[str, Source] = {
    **{name: Measured(measure) for name, measure in MEASURES.items()},
    **{source.name: source for source in _OTHERS},
}


def _matches(context: Context, text: str) -> TextHits:
    """Few allowed items go into the search; else the best hits are filtered after it, and only a search
    with more hits than are taken is repeated among the allowed items."""
    among = np.flatnonzero(context.allowed).astype(np.uint32)
    if len(among) <= TEXT_INSIDE_MAX:
        return context.text.search(text, TEXT_HITS_MAX, among)
    hits = context.text.search(text, TEXT_HITS_MAX)
    if hits.total > len(hits.ordinals) and len(among) <= TEXT_AMONG_MAX:
        return context.text.search(text, TEXT_HITS_MAX, among)
    return hits  # among so many allowed items, the best hits of all are the best of the allowed


def neighbours(context: Context, slot: str, vector: F32, limit: int) -> Retrieved:
    """Allowed items nearest to ``vector``: exact for few allowed items, else by the index, asked wider until
    enough of its hits are allowed, and exact again where even that leaves too few."""
    matrix = context.hot.items.embeddings[slot]
    allowed_count = int(np.count_nonzero(context.allowed))
    why = context.vectors.unavailable(slot)
    if len(matrix) > EXACT_NEIGHBOURS_MAX < allowed_count:
        if why is None:
            found = _asked_wider(context, slot, vector, limit)
            if found is not None:
                return found
        else:
            context.report.degrade("vector", why)
            return NOTHING
    ordinals, scores = matrix.nearest(vector, limit, _sized(context.allowed, context.items))
    return Retrieved(ordinals, scores, min(allowed_count, len(matrix)))


def _asked_wider(context: Context, slot: str, vector: F32, limit: int) -> Retrieved | None:
    share = max(np.count_nonzero(context.allowed) / max(1, context.items), _SHARE_MIN)
    asked = round(limit / share * _HEADROOM)
    for _ in range(_ASKED_TIMES_MAX):
        ordinals, _ = context.vectors.nearest(slot, vector, asked)
        kept = ordinals[context.allowed[ordinals]]
        if len(kept) >= limit:
            # Scored again from the columns: the index may be quantised, and ties must not depend on it.
            scores = context.hot.items.embeddings[slot].similarity(kept, vector)
            chosen = top(kept, scores, limit, context.hot.items.ordinals)
            return Retrieved(
                kept[chosen], scores[chosen], int(np.count_nonzero(context.allowed)), exact=False
            )
        asked *= 4
    return None


def _best(
    rows: np.ndarray[tuple[int], np.dtype[np.intp]], scores: F64, limit: int, context: Context
) -> Retrieved:
    """The best ``limit`` of ``rows`` by a score column f64[items]."""
    ordinals = rows.astype(np.uint32)
    held = scores[rows]
    chosen = top(ordinals, held, limit, context.hot.items.ordinals)
    return Retrieved(ordinals[chosen], held[chosen], len(rows))


def _unit(vector: tuple[float, ...], matrix: EmbeddingMatrix) -> F32:
    if len(vector) != matrix.dim:
        raise QueryError(f"the vector has {len(vector)} numbers", expected=[str(matrix.dim)])
    given = np.array(vector, dtype=np.float32)
    norm = float(np.linalg.norm(given))
    if not np.isfinite(norm) or norm == 0:
        raise QueryError("the vector has no direction", expected=["finite numbers, not all 0"])
    unit: F32 = (given / norm).astype(np.float32)
    return unit


def _sized(mask: Mask, items: int) -> Mask:
    return mask[:items]


def _scanned_titles(context: Context, text: str) -> Retrieved:
    """Without the index: the best trending (or newest) items whose title has a word of the text."""
    words = [word for word in text.lower().split() if word]
    trends = any(source.source == "trending" for source in context.plan.sources)
    pool = SOURCES["trending" if trends else "newest"].retrieve(context, _SCANNED_TITLES_MAX).ordinals
    titles = [title.lower() for title in context.titles.titles(pool)]
    found = np.array([sum(word in title for word in words) for title in titles], dtype=np.float64)
    hit: U32 = pool[found > 0]
    scores = found[found > 0]
    best = top(hit, scores, len(hit), context.hot.items.ordinals)
    return Retrieved(hit[best], scores[best], len(hit), exact=False)
