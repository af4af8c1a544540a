"""BM25 by hand: how well items match a text, over their fields, in plain Python.

score = Σ over words and fields of  boost · idf · (k₁ + 1) · tf / (tf + k₁ · (1 − b + b · length / mean)),
idf = ln(1 + (N − n + ½) / (n + ½)), with k₁ = 1.2 and b = 0.75 (Robertson and Zaragoza, 2009). A word matches
where any field has it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

K1: Final = 1.2
B: Final = 0.75

# Searched fields with their boosts, in the order in which their scores are added.
FIELDS: Final = {"title": 2.0, "description": 1.0, "tags": 1.0}

# Up to here an index that keeps a field's length in one byte keeps it exactly.
EXACT_LENGTH_MAX: Final = 40

WORD: Final = re.compile(r"[^\W_]+")


class TextIndex:
    """Words of a set of items: by field, how often each word occurs in each item."""

    def __init__(self, items: Mapping[str, Mapping[str, Any]]) -> None:
        self._items = len(items)
        self._words = {
            field: {id_: Counter(words_of(item.get(field, ""))) for id_, item in items.items()}
            for field in FIELDS
        }
        self._lengths = {
            field: {id_: words.total() for id_, words in by_item.items()}
            for field, by_item in self._words.items()
        }
        assert max(max(lengths.values(), default=0) for lengths in self._lengths.values()) <= EXACT_LENGTH_MAX

    def scores(self, text: str) -> dict[str, float]:
        """BM25 of every item that has at least one word of the text in at least one field."""
        scores: dict[str, float] = {}
        for word in words_of(text):
            for field, boost in FIELDS.items():
                for id_, score in self._word_scores(word, field).items():
                    scores[id_] = scores.get(id_, 0.0) + boost * score
        return scores

    def _word_scores(self, word: str, field: str) -> dict[str, float]:
        occurrences = {id_: words[word] for id_, words in self._words[field].items() if word in words}
        lengths = self._lengths[field]
        mean_length = sum(lengths.values()) / self._items
        idf = math.log(1 + (self._items - len(occurrences) + 0.5) / (len(occurrences) + 0.5))
        return {
            id_: idf * (K1 + 1) * tf / (tf + K1 * (1 - B + B * lengths[id_] / mean_length))
            for id_, tf in occurrences.items()
        }


def words_of(value: str | list[str]) -> list[str]:
    """Runs of letters and digits in lower case; those of every entry of a list."""
    texts = [value] if isinstance(value, str) else value
    return [word.lower() for text in texts for word in WORD.findall(text)]
