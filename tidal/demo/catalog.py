"""Items of the demo's site: text, tags, creators, and embeddings that lie near those of their subject."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tidal.demo import vocabulary

DAY_MS: Final = 86_400_000

# Share of the items that were published within the two days of activity; the rest is up to 90 days old.
FRESH_SHARE: Final = 0.08
OLDEST_AGE_DAYS: Final = 90.0
ACTIVITY_DAYS: Final = 2.0

# The reference search is for piano tutorials: the first items of every site are some.
PIANO_TUTORIALS: Final = 12

# Lengths of the three parts of an embedding before it is normalised.
CATEGORY_PART: Final = 1.0
SUBJECT_PART: Final = 0.8
OWN_PART: Final = 0.7

# Four digits keep a record at about 3 kB; the vector that counts is the rounded one, everywhere.
EMBEDDING_DIGITS: Final = 4

# Exponent of the popularity by rank within a category; 1 would be Zipf's law.
POPULARITY_EXPONENT: Final = 0.85


class Catalog(NamedTuple):
    """The site's items, column-wise; row i of every column is one item.

    records: what is published to the log, with `id` and `embeddings`. category: i64[items], index into the
    vocabulary's categories. created_ms: i64[items]. popularity: f64[items], the chance of an item within its
    category, sums to 1 in each.
    """

    records: list[dict[str, Any]]
    category: npt.NDArray[np.int64]
    created_ms: npt.NDArray[np.int64]
    popularity: npt.NDArray[np.float64]

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.records]

    def titled(self, words: str) -> npt.NDArray[np.intp]:
        """Rows of the items whose title contains `words`, whatever the case."""
        rows = [row for row, item in enumerate(self.records) if words in item["title"].lower()]
        return np.asarray(rows, dtype=np.intp)


def make_catalog(
    rng: np.random.Generator, count: int, creators: list[dict[str, Any]], embedding_dim: int, anchor_ms: int
) -> Catalog:
    """`count` items i1, i2, …, all published before `anchor_ms`."""
    subjects = [(name, subject) for name, all_ in vocabulary.SUBJECTS_BY_CATEGORY.items() for subject in all_]
    names = list(vocabulary.SUBJECTS_BY_CATEGORY)
    chosen = rng.integers(len(subjects), size=count)
    chosen[:PIANO_TUTORIALS] = subjects.index(("music", "piano"))
    category = np.asarray([names.index(subjects[row][0]) for row in chosen], dtype=np.int64)
    created_ms = _creation_times(rng, count, anchor_ms)
    vectors = _embeddings(rng, chosen, category, len(subjects), embedding_dim)
    creator_of = _creators_by_category(rng, category, len(creators))
    records = [
        _record(
            rng, row, subjects[chosen[row]], creators[creator_of[row]], int(created_ms[row]), vectors[row]
        )
        for row in range(count)
    ]
    return Catalog(records, category, created_ms, _popularity(rng, category))


def _record(
    rng: np.random.Generator,
    row: int,
    subject_of_category: tuple[str, str],
    creator: dict[str, Any],
    created_ms: int,
    vector: npt.NDArray[np.float64],
) -> dict[str, Any]:
    category, subject = subject_of_category
    drawn = rng.integers(len(vocabulary.TITLE_PATTERNS))
    pattern = vocabulary.TUTORIAL if row < PIANO_TUTORIALS else vocabulary.TITLE_PATTERNS[drawn]
    detail = vocabulary.DETAILS[rng.integers(len(vocabulary.DETAILS))]
    neighbours = vocabulary.SUBJECTS_BY_CATEGORY[category]
    minutes = int(rng.integers(2, 60))
    description = vocabulary.DESCRIPTION_PATTERNS[rng.integers(len(vocabulary.DESCRIPTION_PATTERNS))]
    title = pattern.text.format(subject=subject, detail=detail)
    return {
        "id": f"i{row + 1}",
        "creator": creator["id"],
        "title": title[0].upper() + title[1:],
        "description": description.format(
            name=creator["name"],
            subject=subject,
            detail=detail,
            category=category,
            neighbour=neighbours[rng.integers(len(neighbours))],
            minutes=minutes,
        ),
        "tags": [category, subject.lower().replace(" ", "-"), pattern.tag],
        "category": category,
        "format": str(rng.choice(vocabulary.FORMATS, p=vocabulary.FORMAT_SHARES)),
        "language": "en",
        "duration_s": float(minutes * 60),
        "created_at": created_ms,
        "status": "active",
        "embeddings": {"content": vector.tolist()},
    }


def _creation_times(rng: np.random.Generator, count: int, anchor_ms: int) -> npt.NDArray[np.int64]:
    ages_days = rng.uniform(ACTIVITY_DAYS, OLDEST_AGE_DAYS, size=count)
    fresh = rng.random(count) < FRESH_SHARE
    ages_days[fresh] = rng.uniform(0.1, ACTIVITY_DAYS, size=int(fresh.sum()))
    return anchor_ms - (ages_days * DAY_MS).astype(np.int64)


def _embeddings(
    rng: np.random.Generator,
    subject: npt.NDArray[np.int64],
    category: npt.NDArray[np.int64],
    subjects: int,
    dim: int,
) -> npt.NDArray[np.float64]:
    """f64[items, dim], length about 1: a category's direction, a subject's within it, the item's own."""
    category_part = _unit(rng.normal(size=(int(category.max()) + 1, dim)))[category]
    subject_part = _unit(rng.normal(size=(subjects, dim)))[subject]
    own_part = _unit(rng.normal(size=(len(subject), dim)))
    mixed = CATEGORY_PART * category_part + SUBJECT_PART * subject_part + OWN_PART * own_part
    return np.round(_unit(mixed), EMBEDDING_DIGITS)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def _creators_by_category(
    rng: np.random.Generator, category: npt.NDArray[np.int64], creators: int
) -> npt.NDArray[np.int64]:
    """i64[items]: a creator's row for each item; a creator stays with one category, a few are far busier."""
    categories = int(category.max()) + 1
    draw = rng.power(0.6, size=len(category))
    own = np.arange(creators)
    result = np.zeros(len(category), dtype=np.int64)
    for number in range(categories):
        theirs = own[own % categories == number]
        rows = np.flatnonzero(category == number)
        result[rows] = theirs[(draw[rows] * len(theirs)).astype(np.int64)]
    return result


def _popularity(rng: np.random.Generator, category: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    popularity = np.zeros(len(category))
    for number in range(int(category.max()) + 1):
        rows = rng.permutation(np.flatnonzero(category == number))
        weights = np.arange(1, len(rows) + 1, dtype=np.float64) ** -POPULARITY_EXPONENT
        popularity[rows] = weights / weights.sum()
    return popularity
