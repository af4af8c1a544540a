"""From text to a predicate. The grammar is predicate.lark; other grammars import its rule ``condition``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, get_args

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.visitors import merge_transformers

from schemas.durations import ALL_TIME
from schemas.errors import PredicateError, PredicateLimitError
from schemas.nearest import nearest
from schemas.predicate_ast import (
    And,
    Comparison,
    Flag,
    Not,
    Operand,
    Operator,
    Or,
    Position,
    Predicate,
    Read,
    Scalar,
    SignalComparison,
    joined,
)

GRAMMAR_DIR: Final = Path(__file__).parent
"""Where predicate.lark lies, for ``import_paths`` of a grammar that imports it."""

DEPTH_MAX: Final = 16
TEXT_BYTES_MAX: Final = 8_192

_READS: Final = get_args(Read)
_WINDOW_OPTIONAL: Final = ("count", "sum", "mean")

_HUMAN_WORDS: Final = {
    "NAME": "a field, state, segment or cohort",
    "WORD": "a value",
    "STRING": "a value",
    "NUMBER": "a number",
    "SPAN": "a window like 30d, or all_time",
    "COLON": "a comparison (: = != < <= > >=)",
    "OPERATOR": "a comparison (: = != < <= > >=)",
    "NEGATED": "NOT",
    "_COMMA": "','",
    "_DOT": "'.'",
    "_LPAR": "'('",
    "_RPAR": "')'",
    "_LBRACKET": "'['",
    "_RBRACKET": "']'",
    "$END": "the end",
}


class Condition(NamedTuple):
    """A parsed predicate, the depth of its nesting (parentheses count) and the place where it is deepest."""

    predicate: Predicate
    depth: int
    position: Position

    def within(self, depth_max: int) -> Predicate:
        """The predicate, if it is not nested deeper than the limit.

        Raises:
            PredicateLimitError: it is.
        """
        if self.depth > depth_max:
            raise PredicateLimitError(
                f"the predicate is nested {self.depth} deep, the limit is {depth_max} (max_predicate_depth)",
                *self.position,
                limit="max_predicate_depth",
                value=self.depth,
                allowed=depth_max,
            )
        return self.predicate


def parse_predicate(text: str, depth_max: int = DEPTH_MAX) -> Predicate:
    """The predicate that ``text`` states.

    Raises:
        PredicateError: with line, column, what was expected there and the nearest keyword.
        PredicateLimitError: longer than 8 KiB, or nested deeper than ``depth_max``.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > TEXT_BYTES_MAX:
        raise PredicateLimitError(
            f"the predicate is longer than {TEXT_BYTES_MAX} bytes (max_query_text_bytes)",
            1,
            1,
            limit="max_query_text_bytes",
            value=size,
            allowed=TEXT_BYTES_MAX,
        )
    if not text.strip():
        raise PredicateError("the predicate is empty", 1, 1, [_HUMAN_WORDS["NAME"]])
    try:
        condition = cast(Condition, _parser().parse(text))
    except UnexpectedInput as error:
        raise syntax_error(error, text) from None
    return condition.within(depth_max)


def literal(word: str) -> Scalar:
    """The scalar of an unquoted word: a canonical number or truth value, else the word itself.

    ``007`` and ``1e5`` stay strings, so that no spelling is lost; a numeric field reads them later.
    """
    if word in ("true", "false"):
        return word == "true"
    if _INTEGER.fullmatch(word):
        return int(word)
    if _DECIMAL.fullmatch(word) and repr(float(word)) == word:
        return float(word)
    return word


_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")


@v_args(inline=True)
class PredicateTransformer(Transformer[Token, Condition]):
    """Builds predicates while the text is being read (bottom up: no recursion, whatever the nesting)."""

    def start(self, condition: Condition) -> Condition:
        return condition

    def condition(self, condition: Condition) -> Condition:
        return condition

    def group(self, inner: Condition) -> Condition:
        return inner._replace(depth=inner.depth + 1)

    def negation(self, inner: Condition) -> Condition:
        return Condition(Not(inner.predicate), inner.depth + 1, inner.position)

    def conjunction(self, *parts: Condition) -> Condition:
        return _joined(And, parts)

    def disjunction(self, *parts: Condition) -> Condition:
        return _joined(Or, parts)

    def flag(self, name: Token) -> Condition:
        return _leaf(Flag(str(name), _position(name)))

    def existence(self, name: Token) -> Condition:
        return _leaf(Comparison(str(name), "EXISTS", None, _position(name)))

    def comparison(self, name: Token, operator: Token, value: Scalar) -> Condition:
        op = "=" if operator == ":" else operator.upper()
        return _leaf(Comparison(str(name), cast(Operator, op), value, _position(name)))

    def membership(self, name: Token, negated: Token | None, *values: Scalar) -> Condition:
        return _maybe_negated(name, "IN", values, negated)

    def range(self, name: Token, negated: Token | None, low: Scalar, high: Scalar) -> Condition:
        return _maybe_negated(name, "BETWEEN", (low, high), negated)

    def signal_comparison(
        self, signal: Token, read: Token, window: Token | None, operator: Token, number: Token
    ) -> Condition:
        known = _known_read(read)
        if window is None and known not in _WINDOW_OPTIONAL:
            raise PredicateError(f"{known} needs a window", *_position(read), [f"{known}(24h)"])
        return _leaf(
            SignalComparison(
                signal=str(signal),
                read=known,
                window=ALL_TIME if window is None else str(window),
                op=cast(Operator, str(operator)),
                value=float(number),
                position=_position(signal),
            )
        )

    def value(self, token: Token) -> Scalar:
        return literal(str(token)) if token.type.endswith("WORD") else unquoted(token)


def syntax_error(error: UnexpectedInput, text: str) -> PredicateError:
    """lark's error as ours: human words for what was expected, the keyword that was probably meant."""
    found, terminals = _found(error, text)
    if not found:
        return PredicateError("the text ends too early", *_end_of(text), expected_words(terminals))
    if found in ('"', "'") and "a value" in expected_words(terminals):
        return PredicateError(
            "this text has no closing quote", error.line, error.column, [f"a second {found}"]
        )
    message = f"{found!r} cannot stand here" if found else "the text ends too early"
    return PredicateError(
        message, error.line, error.column, expected_words(terminals), _keyword(found, terminals)
    )


def expected_words(terminals: Iterable[str]) -> list[str]:
    """Terminals of the grammar in human words, sorted, each once."""
    return sorted({_HUMAN_WORDS.get(_bare(name), _bare(name).lstrip("_")) for name in terminals})


def _found(error: UnexpectedInput, text: str) -> tuple[str, set[str]]:
    """What stands at the error (``""`` = the end of the text) and the terminals that could."""
    if isinstance(error, UnexpectedCharacters):
        return text[error.pos_in_stream or 0 :][:1], set(error.allowed)
    if isinstance(error, UnexpectedToken):
        found = "" if error.token.type == "$END" else str(error.token)
        return found, set(error.accepts or error.expected)
    return "", set()


def _bare(terminal: str) -> str:
    # A terminal that another grammar imports is called predicate__NAME there.
    return terminal.rpartition("__")[2] if "__" in terminal.strip("_") else terminal


def _keyword(found: str, terminals: Iterable[str]) -> str | None:
    keywords = [word for word in expected_words(terminals) if word.isalpha() and word.isupper()]
    return nearest(found.upper(), keywords) if len(found) > 1 else None


def _end_of(text: str) -> Position:
    lines = text.split("\n")
    return Position(len(lines), len(lines[-1]) + 1)


def _leaf(predicate: Comparison | Flag | SignalComparison) -> Condition:
    return Condition(predicate, 1, predicate.position)


def _joined(kind: type[And] | type[Or], parts: Sequence[Condition]) -> Condition:
    deepest = max(parts, key=lambda part: part.depth)
    predicate = joined(kind, [part.predicate for part in parts])
    return Condition(predicate, deepest.depth + 1, deepest.position)


def _maybe_negated(name: Token, op: Operator, value: Operand, negated: Token | None) -> Condition:
    leaf = _leaf(Comparison(str(name), op, value, _position(name)))
    return leaf if negated is None else Condition(Not(leaf.predicate), leaf.depth + 1, leaf.position)


def _known_read(token: Token) -> Read:
    if token in _READS:
        return cast(Read, str(token))
    raise PredicateError(
        f"{str(token)!r} is no aggregate of a signal", *_position(token), _READS, nearest(token, _READS)
    )


def unquoted(token: Token) -> str:
    """The text that a STRING of the grammar stands for.

    Raises:
        PredicateError: it has an escape that is not one, or half of a surrogate pair.
    """
    body = token[1:-1] if token[0] == '"' else _QUOTED.sub(_as_json, token[1:-1])
    try:
        text = str(json.loads(f'"{body}"', strict=False))
        text.encode()
    except ValueError as error:
        raise PredicateError(
            f"{token} has an escape that is not one", *_position(token), ['\\" \\\\ \\n \\t or \\uXXXX']
        ) from error
    return text


_QUOTED: Final = re.compile(r'\\.|"')


def _as_json(found: re.Match[str]) -> str:
    """A piece of a single-quoted text as it stands in a double-quoted one."""
    return {"\\'": "'", '"': '\\"'}.get(found[0], found[0])


def _position(token: Token) -> Position:
    return Position(token.line or 0, token.column or 0)


def make_parser(grammar: Path, transformer: Transformer[Token, Any]) -> Lark:
    """A parser of predicate.lark or of a grammar that imports rules of it, which build predicates there.

    No tree is made: a text parses to what ``transformer`` gives for it.
    """
    both = merge_transformers(transformer, predicate=PredicateTransformer())  # type: ignore[no-untyped-call]
    return Lark(
        grammar.read_text(encoding="utf-8"),
        parser="lalr",
        lexer="contextual",
        import_paths=[str(GRAMMAR_DIR)],
        transformer=both,
        maybe_placeholders=True,
    )


@cache
def _parser() -> Lark:
    return make_parser(GRAMMAR_DIR / "predicate.lark", PredicateTransformer())
