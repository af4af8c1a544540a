"""From text to a query. The grammar is query.lark, which imports the predicates' grammar of the schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec
from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from queryd.errors import LimitExceeded, NotServed, QueryError, nearest_name
from queryd.language.ast import Explain, Query, Within
from schemas.epoch import epoch_ms
from schemas.errors import PredicateError, PredicateLimitError, shown
from schemas.model import Diversity
from schemas.predicate_parser import (
    DEPTH_MAX,
    TEXT_BYTES_MAX,
    Condition,
    expected_words,
    make_parser,
    unquoted,
)

WHOLE_MAX: Final = 2**64 - 1
"""Of LIMIT and SEED: what a cursor can carry."""
WHOLE_RANGE: Final = "0 to 2^64 - 1"
DIGITS: Final = re.compile("[0-9]{1,20}")
"""The spelling of a number that no float has to stand in for."""

_DIVERSITY: Final = ("max_per_creator", "max_per_category", "format_mix", "mmr")
_HUMAN_WORDS: Final = {
    "NAME": "a name",
    "STRING": "a quoted text",
    "SPAN": "a window",
    "REFERENCE": "@id",
    "AT_VERSION": "@version",
    "SIGNED_NUMBER": "a number",
    "TIMESTAMP": "a time",
    "ENTITIES": "items",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COLON": "':'",
    "COMMA": "','",
}


class _Clause(NamedTuple):
    field: str
    value: Any
    line: int
    column: int


def parse_query(text: str, *, text_bytes_max: int = TEXT_BYTES_MAX, depth_max: int = DEPTH_MAX) -> Query:
    """The query that ``text`` states.

    Raises:
        QueryError: with line, column, what was expected there and the nearest valid word.
        NotServed: SUGGEST, which this version does not answer.
        LimitExceeded: longer than ``text_bytes_max`` bytes or a predicate deeper than ``depth_max``.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > text_bytes_max:
        raise LimitExceeded("max_query_text_bytes", size, text_bytes_max)
    try:
        query, depth = cast("tuple[Query, int]", _parser().parse(text))
    except UnexpectedInput as error:
        raise _syntax_error(error, text) from None
    except PredicateError as error:
        raise from_predicate_error(error) from None
    if depth > depth_max:
        raise LimitExceeded("max_predicate_depth", depth, depth_max)
    return query


def from_predicate_error(
    error: PredicateError, line: int = 0, column: int = 0, *, path: str = ""
) -> QueryError | LimitExceeded:
    """A predicate's mistake as the query's; the place of the clause when the predicate has none.

    ``path`` is the parameter or key that the predicate stands in, when it is not part of a query's text.
    """
    if isinstance(error, PredicateLimitError):
        return LimitExceeded(error.limit, error.value, error.allowed)
    where = (error.line, error.column) if error.line else (line, column)
    return QueryError(error.message, *where, error.expected, error.nearest, path)


def parse_time(text: str) -> int:
    """Epoch milliseconds of an integer or an ISO 8601 time (UTC where it names no offset).

    Raises:
        ValueError: neither.
    """
    if text.lstrip("-").isdigit():
        return int(text)
    return epoch_ms(datetime.fromisoformat(text.replace("Z", "+00:00")))


def diversity_of(pairs: Iterable[tuple[str, Any]], fail: Callable[[str], QueryError]) -> Diversity:
    """The diversity clause from (name, value) pairs; ``fail`` makes the error for a name that is unknown."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in _DIVERSITY or name in values:
            raise fail(name)
        is_count = name.startswith("max_") and isinstance(value, float) and value.is_integer()
        values[name] = int(value) if is_count else value
    try:
        diversity = msgspec.convert(values, Diversity, strict=True)
    except msgspec.ValidationError as error:
        raise QueryError(f"DIVERSITY: {error}", expected=["max_per_creator:2"]) from error
    for name in ("max_per_creator", "max_per_category"):
        most = getattr(diversity, name)
        if most is not None and most < 1:
            raise QueryError(f"DIVERSITY {name} is less than 1", expected=["1 or more"])
    return diversity


@v_args(inline=True)
class _QueryTransformer(Transformer[Token, Any]):
    """Builds the query while the text is being read."""

    def start(self, found: tuple[Query, int]) -> tuple[Query, int]:
        return found

    def condition(self, condition: Condition) -> Condition:
        return condition

    def explain(self, found: tuple[Query, int]) -> tuple[Query, int]:
        return _explained(found, "plan")

    def explain_analyze(self, found: tuple[Query, int]) -> tuple[Query, int]:
        return _explained(found, "analyze")

    def retrieve(self, entities: Token, *clauses: _Clause) -> tuple[Query, int]:
        return _assembled("retrieve", entities, clauses)

    def search(self, entities: Token, *clauses: _Clause) -> tuple[Query, int]:
        return _assembled("search", entities, clauses)

    def suggest(self, prefix: Token, *_clauses: _Clause) -> tuple[Query, int]:
        raise NotServed("SUGGEST is not served yet", *_place(prefix), ["RETRIEVE", "SEARCH"])

    def query_text(self, text: Token) -> _Clause:
        return _clause("text", unquoted(text), text)

    def vector(self, *numbers: Token) -> _Clause:
        return _clause("vector", tuple(float(number) for number in numbers), numbers[0])

    def like(self, target: Token) -> _Clause:
        return _clause("like", _reference(target, "item"), target)

    def for_user(self, target: Token) -> _Clause:
        return _clause("user", _reference(target, "user"), target)

    def using_profile(self, name: Token, version: Token | None) -> _Clause:
        return _clause("profile", f"{name}{version or ''}", name)

    def filter(self, condition: Condition) -> _Clause:
        return _Clause("filter", condition, *condition.position)

    def cohort(self, condition: Condition) -> _Clause:
        return _Clause("cohort", condition, *condition.position)

    def within(self, scope: _Clause) -> _Clause:
        return scope

    def trending(self) -> _Clause:
        return _scope("trending")

    def following(self) -> _Clause:
        return _scope("following")

    def liked(self) -> _Clause:
        return _scope("liked")

    def saved(self) -> _Clause:
        return _scope("saved")

    def similar(self, target: Token) -> _Clause:
        return _clause("within", Within("similar", _reference(target, "item")), target)

    def by_creator(self, target: Token) -> _Clause:
        return _clause("within", Within("creator", _reference(target, "creator")), target)

    def signal(self, name: Token) -> _Clause:
        return _clause("signal", str(name), name)

    def window(self, span: Token) -> _Clause:
        return _clause("window", str(span).lower(), span)

    def sort_by(self, mode: Token) -> _Clause:
        return _clause("sort", str(mode).lower(), mode)

    def diversity(self, *pairs: tuple[Token, Any]) -> _Clause:
        first = pairs[0][0]
        return _clause(
            "diversity",
            diversity_of(
                [(str(name), value) for name, value in pairs],
                lambda name: _unknown_diversity(name, pairs),
            ),
            first,
        )

    def pair(self, name: Token, *values: Any) -> tuple[Token, Any]:
        if values and isinstance(values[0], tuple):
            return name, {_word(key): float(number) for key, number in values}
        return name, float(values[0])

    def share(self, name: Token, number: Token) -> tuple[Token, Token]:
        return name, number

    def fields(self, *names: Token) -> _Clause:
        return _clause("fields", tuple(str(name) for name in names), names[0])

    def limit(self, number: Token) -> _Clause:
        return _clause("limit", _whole(number, "LIMIT"), number)

    def seed(self, number: Token) -> _Clause:
        return _clause("seed", _whole(number, "SEED"), number)

    def cursor(self, text: Token) -> _Clause:
        return _clause("cursor", unquoted(text), text)

    def after(self, text: Token) -> _Clause:
        return _clause("after", unquoted(text), text)

    def as_of(self, moment: Token) -> _Clause:
        try:
            return _clause("as_of_ms", parse_time(_word(moment)), moment)
        except (ValueError, OverflowError):
            raise QueryError(
                f"{_word(moment)!r} is no time", *_place(moment), ["epoch milliseconds", "2026-01-31T12:00Z"]
            ) from None

    def reference(self, target: Token) -> Token:
        return target

    def number(self, number: Token) -> Token:
        return number


def _explained(found: tuple[Query, int], explain: Explain) -> tuple[Query, int]:
    query, depth = found
    return msgspec.structs.replace(query, explain=explain), depth


def _assembled(verb: str, entities: Token, clauses: Sequence[_Clause]) -> tuple[Query, int]:
    values: dict[str, Any] = {}
    depth = 0
    for clause in clauses:
        if clause.field in values:
            raise QueryError(
                f"{_CLAUSE_NAMES[clause.field]} is given twice", clause.line, clause.column, ["it once"]
            )
        value = clause.value
        if isinstance(value, Condition):
            depth = max(depth, value.depth)
            value = value.predicate
        values[clause.field] = value
    return Query(verb=cast(Any, verb), entities=cast(Any, entities.lower()), **values), depth


_CLAUSE_NAMES: Final = {
    "text": "QUERY",
    "vector": "VECTOR",
    "like": "LIKE",
    "user": "FOR USER",
    "profile": "USING PROFILE",
    "filter": "FILTER",
    "within": "WITHIN",
    "cohort": "COHORT",
    "signal": "SIGNAL",
    "window": "WINDOW",
    "sort": "SORT BY",
    "diversity": "DIVERSITY",
    "fields": "FIELDS",
    "limit": "LIMIT",
    "cursor": "CURSOR",
    "after": "AFTER",
    "as_of_ms": "AS OF",
    "seed": "SEED",
}


def _clause(field: str, value: Any, token: Token) -> _Clause:
    return _Clause(field, value, *_place(token))


def _scope(kind: Any) -> _Clause:
    return _Clause("within", Within(kind), 0, 0)


def _place(token: Token) -> tuple[int, int]:
    return token.line or 0, token.column or 0


def _whole(token: Token, clause: str) -> int:
    number = int(token) if DIGITS.fullmatch(token) else float(token)
    if not 0 <= number <= WHOLE_MAX or number != int(number):
        raise QueryError(f"{clause} {shown(str(token))} is no whole number", *_place(token), [WHOLE_RANGE])
    return int(number)


def _word(token: Token) -> str:
    return unquoted(token) if token[:1] in ('"', "'") else str(token)


def _reference(token: Token, kind: str) -> str:
    """The id of ``@id``, ``@item:id`` or ``"id"``; a kind prefix is taken off when it is the clause's own."""
    return referred(str(token), kind) if token[0] == "@" else unquoted(token)


def referred(text: str, kind: str) -> str:
    """The id of ``id``, ``@id`` or ``@kind:id``."""
    return text[1:].removeprefix(f"{kind}:") if text.startswith("@") else text


def _unknown_diversity(name: str, pairs: Sequence[tuple[Token, Any]]) -> QueryError:
    token = next(token for token, _ in reversed(pairs) if token == name)
    problem = f"DIVERSITY {name} is given twice" if name in _DIVERSITY else f"{name!r} is no diversity rule"
    return QueryError(problem, *_place(token), _DIVERSITY, nearest_name(name, _DIVERSITY))


def _syntax_error(error: UnexpectedInput, text: str) -> QueryError:
    terminals: Iterable[str] = ()
    found = _word_at(text, error.pos_in_stream)
    if isinstance(error, UnexpectedCharacters):
        terminals = error.allowed or ()
    elif isinstance(error, UnexpectedToken):
        terminals = error.accepts or error.expected
        found = "" if error.token.type == "$END" else found
    if found in ('"', "'"):
        return QueryError("this text has no closing quote", error.line, error.column, [f"a second {found}"])
    if not found:
        lines = text.split("\n")
        return QueryError("the query ends too early", len(lines), len(lines[-1]) + 1, _expected(terminals))
    if (clause := _left_empty(text[: error.pos_in_stream])) is not None:
        message = f"{clause} has no predicate: a clause follows it at once"
        return QueryError(message, error.line, error.column, ["a predicate, for example locale:US"])
    wanted = _expected(terminals)
    keywords = [word.lower() for word in wanted if word.replace(" ", "").isalpha()]
    near = nearest_name(found, keywords)
    return QueryError(
        f"{found!r} cannot stand here", error.line, error.column, wanted, near.upper() if near else None
    )


def _left_empty(before: str) -> str | None:
    """The clause that has no predicate, where the next clause's first word was taken for one."""
    found = re.search(r"\b(COHORT|FILTER)\s+(\w+)\s*$", before, re.IGNORECASE)
    keywords = {name.split()[0] for name in _CLAUSE_NAMES.values()}
    return found[1].upper() if found and found[2].upper() in keywords else None


def _word_at(text: str, position: int | None) -> str:
    rest = text[position or 0 :] if position is not None and position >= 0 else ""
    rest = rest.lstrip() if not rest[:1].strip() else rest
    length = next((at for at, char in enumerate(rest) if not (char.isalnum() or char == "_")), len(rest))
    return rest[: max(length, 1)]


def _expected(terminals: Iterable[str]) -> list[str]:
    words = set()
    for name in terminals:
        if "__" in name.strip("_"):
            words.update(expected_words([name]))
        else:
            bare = name.lstrip("_")
            words.add("the end" if name == "$END" else _HUMAN_WORDS.get(bare, bare))
    return sorted(words)


@cache
def _parser() -> Lark:
    return make_parser(Path(__file__).parent / "query.lark", _QueryTransformer())
