"""The recount's BM25 is the index's: same scores, same order."""

from __future__ import annotations

import math
import random

import pytest
import tantivy

from tidal.demo.text_match import FIELDS, K1, B, TextIndex, words_of

WORDS = ("piano", "tutorial", "jazz", "bread", "slow", "live", "night", "story")


def _items(seed: int) -> dict[str, dict[str, object]]:
    rng = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    return {
        f"i{number}": {
            "title": text(6),
            "description": text(20),
            "tags": rng.sample(WORDS, rng.randint(0, 3)),
        }
        for number in range(120)
    }


def _tantivy_scores(items: dict[str, dict[str, object]], text: str) -> dict[str, float]:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    for field in FIELDS:
        builder.add_text_field(field, stored=False, tokenizer_name="default", index_option="position")
    index = tantivy.Index(builder.build())
    writer = index.writer(heap_size=20_000_000, num_threads=1)
    for id_, item in items.items():
        document = tantivy.Document()
        document.add_text("id", id_)
        for field in FIELDS:
            value = item[field]
            for part in value if isinstance(value, list) else [value]:
                document.add_text(field, part)
        writer.add_document(document)
    writer.commit()
    index.reload()
    query, _ = index.parse_query_lenient(text, list(FIELDS), field_boosts=FIELDS)
    searcher = index.searcher()
    return {searcher.doc(address)["id"][0]: score for score, address in searcher.search(query, 1_000).hits}


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_index(seed: int) -> None:
    items = _items(seed)
    expected = _tantivy_scores(items, "piano tutorial")
    found = TextIndex(items).scores("piano tutorial")
    assert found.keys() == expected.keys()
    for id_, score in found.items():
        assert math.isclose(score, expected[id_], rel_tol=1e-5), id_


def test_a_score_by_hand() -> None:
    items = {"a": {"title": "piano"}, "b": {"title": "slow bread"}}
    (score,) = TextIndex(items).scores("piano").values()
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert score == pytest.approx(FIELDS["title"] * idf * (K1 + 1) / (1 + K1 * (1 - B + B * 1 / 1.5)))


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words_of("Piano tutorial: 7 short-lessons") == ["piano", "tutorial", "7", "short", "lessons"]
    assert words_of(["night-trains", "Slow"]) == ["night", "trains", "slow"]
