"""Order, fusion, diversity and normalisation against their plain definitions."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from queryd.hot.embeddings import EmbeddingMatrix
from queryd.hot.ordinals import Ordinals
from queryd.ranking.curves import recency
from queryd.ranking.diversity import demote
from queryd.ranking.fusion import ranks, reciprocal
from queryd.ranking.normalise import min_max
from queryd.ranking.order import smallest_ids, top

# Ids that share their first 32 bytes are the hard case of the tie rule.
IDS = st.text("ab\u00e9\U0001f600", max_size=4).map(lambda end: "x" * 31 + end) | st.text(
    "abz", min_size=1, max_size=3
)
SCORED = st.dictionaries(IDS, st.integers(0, 3).map(float), min_size=1, max_size=30)


def columns(scored: dict[str, float]) -> tuple[np.ndarray, np.ndarray, Ordinals]:
    ids = Ordinals()
    ordinals = ids.deal(list(scored))
    return ordinals, np.array(list(scored.values())), ids


@given(SCORED, st.integers(0, 35))
def test_top_is_score_descending_then_id(scored: dict[str, float], k: int) -> None:
    ordinals, scores, ids = columns(scored)
    found = [ids.ids[ordinals[position]] for position in top(ordinals, scores, k, ids)]
    assert found == sorted(scored, key=lambda id_: (-scored[id_], id_))[:k]


@given(SCORED, st.integers(0, 35))
def test_smallest_ids(scored: dict[str, float], k: int) -> None:
    ordinals, _, ids = columns(scored)
    found = {ids.ids[ordinals[position]] for position in smallest_ids(ordinals, k, ids)}
    assert found == set(sorted(scored)[:k])


@given(SCORED)
def test_ranks_count_from_one_without_gaps(scored: dict[str, float]) -> None:
    ordinals, scores, ids = columns(scored)
    order = sorted(scored, key=lambda id_: (-scored[id_], id_))
    expected = [order.index(ids.ids[ordinal]) + 1 for ordinal in ordinals.tolist()]
    assert ranks(ordinals, scores, ids).tolist() == expected
    assert reciprocal(np.array([1, 2])).tolist() == [1 / 61, 1 / 62]


@given(st.lists(st.integers(-1, 4), max_size=30), st.integers(1, 3), st.integers(1, 30), st.integers(0, 2))
def test_a_limit_reorders_and_never_shortens(groups: list[int], most: int, k: int, had: int) -> None:
    order = np.arange(len(groups))
    before = Counter({0: had})
    found = demote(order, [(np.array(groups, dtype=np.int32), most, before)], k).tolist()
    count, kept, demoted = Counter(before), [], []
    for position, group in enumerate(groups):
        if group >= 0 and count[group] >= most:
            demoted.append(position)
        else:
            count[group] += 1
            kept.append(position)
    assert found == (kept + demoted)[:k]
    assert before == Counter({0: had})


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_min_max(values: list[float]) -> None:
    scaled = min_max(np.array(values)).tolist()
    assert all(0.0 <= value <= 1.0 for value in scaled)
    if len(set(values)) == 1:
        assert set(scaled) == {1.0}
    assert [scaled[place] for place in np.argsort(values, kind="stable")] == sorted(scaled)


def test_recency_curves() -> None:
    ages = np.array([-5.0, 0.0, 10.0, 20.0, 30.0])
    assert recency(ages, "exponential", 10, 10).tolist() == [1.0, 1.0, 1.0, 0.5, 0.25]
    assert recency(ages, "linear", 20, 10).tolist() == [1.0, 1.0, 1.0, 0.5, 0.0]
    assert recency(ages, "gaussian", 10, 10).tolist() == [1.0, 1.0, 1.0, 0.5, 0.0625]


@given(st.lists(st.lists(st.text("abcdef", min_size=1, max_size=3), max_size=8), max_size=8))
def test_ordinals_are_dealt_once_in_order_of_first_sight(batches: list[list[str]]) -> None:
    ids, known = Ordinals(), {}
    for batch in batches:
        for id_ in batch:
            known.setdefault(id_, len(known))
        assert ids.deal(batch).tolist() == [known[id_] for id_ in batch]
    assert ids.ids == list(known)
    assert [ids.find(id_) for id_ in known] == list(known.values())
    assert ids.find("never seen") is None


def test_ordinals_survive_the_merge_of_the_tail() -> None:
    ids = Ordinals()
    names = [f"item_{number}" for number in range(60_000)]
    for start in range(0, len(names), 7_000):
        ids.deal(names[start : start + 7_000])
    assert ids.deal(names).tolist() == list(range(60_000))
    assert ids.find_entities(ids.entity_ids).tolist() == list(range(60_000))
    assert ids.find_entities(np.array([0, 1], dtype=np.uint64)).tolist() == [-1, -1]


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 99)), max_size=40))
def test_an_embedding_matrix_is_a_dictionary_of_vectors(steps: list[tuple[int, bool, int]]) -> None:
    matrix, held = EmbeddingMatrix(3), {}
    for item, sets, seed in steps:
        ordinals = np.array([item], dtype=np.uint32)
        vector = np.random.default_rng(seed).normal(size=3).astype(np.float32)
        if sets:
            matrix.set(ordinals, vector[None, :])
            held[item] = vector
        else:
            matrix.clear(ordinals)
            held.pop(item, None)
    everything = np.arange(13, dtype=np.uint32)
    assert np.flatnonzero(matrix.has(everything)).tolist() == sorted(held)
    assert len(matrix) == len(held)
    query = np.array([1.0, 0.5, -0.5], dtype=np.float32)
    found, scores = matrix.nearest(query, 5, None)
    exact = matrix.similarity(everything, query)
    best = sorted(held, key=lambda item: -exact[item])[:5]
    assert np.allclose(scores, [exact[item] for item in best], atol=1e-6)
    assert set(found.tolist()) <= set(held)
