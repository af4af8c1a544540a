"""From text to a segment's formula. The grammar is segment.lark; item conditions are those of predicates."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final, NamedTuple, cast

from lark import Lark, Token, UnexpectedInput, v_args

from schemas.errors import PredicateError
from schemas.predicate_ast import Operator, Position
from schemas.predicate_parser import (
    DEPTH_MAX,
    GRAMMAR_DIR,
    TEXT_BYTES_MAX,
    Condition,
    PredicateTransformer,
    make_parser,
    syntax_error,
)
from schemas.segment_ast import AllOf, AnyOf, Formula, Measure, NoneOf

FORM: Final = "count(like, category = jazz, 30d) >= 5"
"""How a segment is written, for messages."""


class _Nested(NamedTuple):
    """A formula and how deep it is nested."""

    formula: Formula
    depth: int


@lru_cache(maxsize=256)
def parse_segment(text: str, depth_max: int = DEPTH_MAX) -> Formula:
    """The formula that ``text`` states; names are not looked up (see ``segment_check``).

    Raises:
        PredicateError: with line, column and what was expected there; or the text is longer than 8 KiB or
            nested deeper than ``depth_max``.
    """
    if len(text.encode(errors="surrogatepass")) > TEXT_BYTES_MAX:
        raise PredicateError(f"the segment is longer than {TEXT_BYTES_MAX} bytes", 1, 1)
    try:
        nested = cast(_Nested, _parser().parse(text))
    except UnexpectedInput as error:
        raise syntax_error(error, text) from None
    if nested.depth > depth_max:
        raise PredicateError(f"the segment is nested {nested.depth} deep, the limit is {depth_max}", 1, 1)
    return nested.formula


@v_args(inline=True)
class _SegmentTransformer(PredicateTransformer):
    """Builds formulas; what stands in an item condition is built as in any predicate."""

    def start(self, nested: _Nested) -> _Nested:  # type: ignore[override]
        return nested

    def any_of(self, *parts: _Nested) -> _Nested:
        return _Nested(AnyOf(tuple(part.formula for part in parts)), _deepest(parts) + 1)

    def all_of(self, *parts: _Nested) -> _Nested:
        return _Nested(AllOf(tuple(part.formula for part in parts)), _deepest(parts) + 1)

    def none_of(self, part: _Nested) -> _Nested:
        return _Nested(NoneOf(part.formula), part.depth + 1)

    def bracketed(self, part: _Nested) -> _Nested:
        return part._replace(depth=part.depth + 1)

    def where(self, condition: Condition) -> Condition:
        return condition

    def measure(
        self,
        read: Token,
        signal: Token,
        where: Condition | None,
        window: Token | None,
        operator: Token,
        number: Token,
    ) -> _Nested:
        measured = Measure(
            read=str(read),
            signal=str(signal),
            where=None if where is None else where.predicate,
            window="" if window is None else str(window),
            op=cast(Operator, str(operator)),
            value=float(number),
            position=Position(read.line or 0, read.column or 0),
        )
        return _Nested(measured, 1 if where is None else 1 + where.depth)


def _deepest(parts: tuple[_Nested, ...]) -> int:
    return max(part.depth for part in parts)


@cache
def _parser() -> Lark:
    return make_parser(GRAMMAR_DIR / "segment.lark", _SegmentTransformer())
