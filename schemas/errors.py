"""Every error that Tidal raises on purpose.

TidalError
├── SchemaError       a schema document that cannot be used; carries every problem found
├── PredicateError    a predicate that does not parse, or names what the schema lacks
│   └── PredicateLimitError    … or is past a limit
├── SettingsError     settings that cannot be used; carries every problem found
└── RecordError       one refused record or event of the log, with a code to count it by
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

RECORD_CODES: Final = frozenset(
    {
        "malformed_json",
        "unknown_kind",
        "non_finite_weight",
        "weight_out_of_range",
        "timestamp_in_future",
        "timestamp_out_of_range",
        "id_too_long",
        "id_empty",
        "missing_field",
        "wrong_type",
        "embedding_dimension",
        "embedding_non_finite",
        "embedding_zero",
        "truncated_batch",
        "checksum_mismatch",
        "unsupported_version",
        "id_collision",
        "unknown_field",
        "created_at_in_future",
    }
)
"""Why a record is refused; ``tidal status`` counts by these, so they are few and never renamed."""


class TidalError(Exception):
    """Base of all errors raised on purpose."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a document.

    ``path`` is written as in ``signals.view.decay.exponential[1]``; ``value`` is what stands there.
    """

    path: str
    value: Any
    expected: str
    nearest: str | None = None

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.path or 'document'}: {shown(self.value)} – expected {self.expected}{hint}"


class SchemaError(TidalError):
    """A schema document with at least one problem; ``problems`` holds all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"the schema has {count}:{lines}")


class SettingsError(TidalError):
    """Settings with at least one problem; each line names the variable, the value and the expected type."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "the settings cannot be used:" + "".join(f"\n  {problem}" for problem in self.problems)
        )


class PredicateError(TidalError):
    """A predicate that cannot be used, at one place of its text.

    ``line`` and ``column`` count from 1 (0 when the predicate did not come from text); ``expected`` holds
    human words, ``nearest`` the closest valid name.
    """

    def __init__(
        self, message: str, line: int, column: int, expected: Sequence[str] = (), nearest: str | None = None
    ) -> None:
        self.message = message
        self.line = line
        self.column = column
        self.expected = tuple(expected)
        self.nearest = nearest
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(self.summary + hint)

    @property
    def summary(self) -> str:
        """What, where and what was expected, without the hint."""
        where = f" at line {self.line}, column {self.column}" if self.line else ""
        wanted = f"; expected {' or '.join(self.expected)}" if self.expected else ""
        return f"{self.message}{where}{wanted}"


class PredicateLimitError(PredicateError):
    """A predicate past a limit: ``limit`` is its name, ``value`` what was given, ``allowed`` what may be."""

    def __init__(self, message: str, line: int, column: int, *, limit: str, value: int, allowed: int) -> None:
        super().__init__(message, line, column)
        self.limit = limit
        self.value = value
        self.allowed = allowed


class RecordError(TidalError):
    """A record or event that is refused and goes to the dead-letter topic.

    ``code`` is one of ``RECORD_CODES``, ``path`` the field (``""`` = the whole record).
    """

    def __init__(self, code: str, path: str, message: str) -> None:
        assert code in RECORD_CODES, code
        self.code = code
        self.path = path
        self.message = message
        super().__init__(f"{code}: {path + ': ' if path else ''}{message}")


_SHOWN_CHARS_MAX = 80  # a report stays readable when the value is a whole document or a blob


def shown(value: object) -> str:
    """``value`` as it is printed in a message: its repr, cut at a bounded length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…"
