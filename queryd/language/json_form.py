"""The JSON form of a query: one key for each clause.

    {"retrieve": "items", "for_user": "u1", "using_profile": "for_you@1", "filter": "unseen",
     "within": "trending", "cohort": "locale:US, age:18-24", "signal": "view", "window": "24h",
     "sort_by": "new", "diversity": {"max_per_creator": 2}, "fields": ["title"], "limit": 50,
     "cursor": "…", "after": "…", "as_of": 1763600000000, "seed": 7, "explain": "analyze"}

``search`` takes the place of ``retrieve``, with ``query`` (the text), ``vector`` or ``like``. ``within`` is a
word, or ``{"similar": "item id"}``, ``{"creator": "id"}``. Predicates are text, or one of ``{"and": […]}``,
``{"or": […]}``, ``{"not": …}``, ``{"field", "op", "value"}``, ``{"flag"}``,
``{"signal", "read", "window", "op", "value"}``. Numbers may be given as text, so that URL parameters are a
JSON form too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from queryd.errors import LimitExceeded, NotServed, QueryError, nearest_name
from queryd.language.ast import SCOPES_WITH_TARGET, Entities, Query, ScopeKind, Within
from queryd.language.parse import (
    DIGITS,
    WHOLE_MAX,
    WHOLE_RANGE,
    diversity_of,
    from_predicate_error,
    parse_time,
    referred,
)
from schemas.errors import PredicateError, shown
from schemas.predicate import (
    And,
    Comparison,
    Flag,
    Not,
    Or,
    Predicate,
    SignalComparison,
    joined,
    parse_predicate,
)
from schemas.predicate_ast import COMPARE, Operand, Operator, Read
from schemas.predicate_parser import DEPTH_MAX

_PLAIN_SCOPES: Final = ("trending", "following", "liked", "saved")


def from_json(document: Mapping[str, Any], *, depth_max: int = DEPTH_MAX) -> Query:
    """The query that a JSON object states.

    Raises:
        QueryError: a key, type or value that is not the form's; ``path`` names the key.
        LimitExceeded: a predicate deeper than ``depth_max``.
    """
    if "suggest" in document:
        raise NotServed("SUGGEST is not served yet", expected=['"retrieve"', '"search"'], path="suggest")
    unknown = [key for key in document if key not in _FIELDS]
    if unknown:
        raise QueryError(
            f"{unknown[0]!r} is no clause",
            expected=list(_FIELDS),
            nearest=nearest_name(unknown[0], _FIELDS),
            path=unknown[0],
        )
    verbs = [verb for verb in ("retrieve", "search") if verb in document]
    if len(verbs) != 1:
        raise QueryError("the query needs one verb", expected=['"retrieve"', '"search"'], path="retrieve")
    values = {
        _FIELDS[key]: _READERS[key](key, value, depth_max)
        for key, value in document.items()
        if value is not None
    }
    values["verb"] = verbs[0]
    return Query(**values)


def _text(path: str, value: Any, _depth: int) -> str:
    if not isinstance(value, str):
        raise QueryError(f"{value!r} is no text", expected=["a text"], path=path)
    return value


def _name(path: str, value: Any, depth: int) -> str:
    return _text(path, value, depth).lower()


def _user(path: str, value: Any, depth: int) -> str:
    return referred(_text(path, value, depth), "user")


def _item(path: str, value: Any, depth: int) -> str:
    return referred(_text(path, value, depth), "item")


def _entities(path: str, value: Any, _depth: int) -> str:
    if value not in get_args(Entities):
        raise QueryError(f"{value!r} cannot be asked for", expected=get_args(Entities), path=path)
    return str(value)


def _whole(path: str, value: Any, _depth: int) -> int:
    number = int(value) if isinstance(value, str) and DIGITS.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= WHOLE_MAX:
        raise QueryError(f"{shown(value)} is no whole number", expected=[WHOLE_RANGE], path=path)
    return number


def _time(path: str, value: Any, depth: int) -> int:
    try:
        return parse_time(value) if isinstance(value, str) else _whole(path, value, depth)
    except ValueError:
        raise QueryError(
            f"{value!r} is no time", expected=["epoch milliseconds", "2026-01-31T12:00Z"], path=path
        ) from None


def _numbers(path: str, value: Any, _depth: int) -> tuple[float, ...]:
    try:
        return msgspec.convert(value, tuple[float, ...], strict=True)
    except msgspec.ValidationError:
        raise QueryError("the vector is no array of numbers", expected=["[0.1, 0.2]"], path=path) from None


def _names(path: str, value: Any, _depth: int) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise QueryError(f"{value!r} is no list of names", expected=['["title"]'], path=path)
    return tuple(name.strip() for name in names if name.strip())


def _explain(path: str, value: Any, _depth: int) -> str:
    known = {True: "plan", False: "no", "true": "plan", "plan": "plan", "analyze": "analyze", "no": "no"}
    if not isinstance(value, str | bool) or value not in known:
        raise QueryError(f"{value!r} is no way to explain", expected=['"plan"', '"analyze"'], path=path)
    return known[value]


def _within(path: str, value: Any, _depth: int) -> Within:
    if isinstance(value, str) and value.lower() in _PLAIN_SCOPES:
        return Within(msgspec.convert(value.lower(), ScopeKind))
    if isinstance(value, Mapping) and len(value) == 1:
        kind, target = next(iter(value.items()))
        if kind in SCOPES_WITH_TARGET and isinstance(target, str):
            return Within(kind, referred(target, "creator" if kind == "creator" else "item"))
    raise QueryError(
        f"{value!r} is no scope",
        expected=[*_PLAIN_SCOPES, '{"similar": "item id"}', '{"creator": "id"}'],
        nearest=nearest_name(str(value), _PLAIN_SCOPES),
        path=path,
    )


def _diversity(path: str, value: Any, _depth: int) -> Any:
    if not isinstance(value, Mapping):
        raise QueryError(f"{value!r} is no set of rules", expected=['{"max_per_creator": 2}'], path=path)
    return diversity_of(
        value.items(), lambda name: QueryError(f"{name!r} is no diversity rule", path=f"{path}.{name}")
    )


def _predicate(path: str, value: Any, depth: int) -> Predicate:
    try:
        if isinstance(value, str):
            return parse_predicate(value, depth)
    except PredicateError as error:
        raise from_predicate_error(error, path=path) from None
    return _structured(path, value, depth, depth)


def _structured(path: str, value: Any, left: int, allowed: int) -> Predicate:
    if left < 1:
        raise LimitExceeded("max_predicate_depth", allowed + 1, allowed)
    if isinstance(value, str):
        return _predicate(path, value, left)
    if not isinstance(value, Mapping):
        raise QueryError(f"{value!r} is no predicate", expected=["text", "an object"], path=path)
    joining = [key for key in ("and", "or", "not") if key in value]
    if not joining:
        return _leaf(path, value)
    if len(value) > 1:
        raise QueryError(f"{joining[0]!r} stands beside other keys", expected=["it alone"], path=path)
    [(key, parts)] = value.items()
    inner = f"{path}.{key}"
    if key == "not":
        return Not(_structured(inner, parts, left - 1, allowed))
    if not isinstance(parts, list | tuple):
        raise QueryError(f"{shown(parts)} is no list of predicates", expected=["a list"], path=inner)
    if not parts:
        raise QueryError("an empty list of predicates", expected=["at least one"], path=path)
    kind = And if key == "and" else Or
    return joined(kind, [_structured(inner, part, left - 1, allowed) for part in parts])


class _FieldLeaf(msgspec.Struct, forbid_unknown_fields=True):
    field: str
    op: Operator
    value: str | int | float | bool | list[str | int | float | bool] | None = None


class _FlagLeaf(msgspec.Struct, forbid_unknown_fields=True):
    flag: str


class _SignalLeaf(msgspec.Struct, forbid_unknown_fields=True):
    signal: str
    read: Read
    op: Operator
    value: float
    window: str = "all_time"


def _leaf(path: str, value: Mapping[str, Any]) -> Predicate:
    document = dict(value)
    try:
        if "signal" in document:
            signal = msgspec.convert(document, _SignalLeaf)
            _require_comparing(signal.op, path)
            return SignalComparison(signal.signal, signal.read, signal.window, signal.op, signal.value)
        if "flag" in document:
            return Flag(msgspec.convert(document, _FlagLeaf).flag)
        leaf = msgspec.convert(document, _FieldLeaf)
    except msgspec.ValidationError as error:
        raise QueryError(f"the predicate is not one: {error}", path=path) from None
    return Comparison(leaf.field, leaf.op, _operand(leaf, path))


def _operand(leaf: _FieldLeaf, path: str) -> Operand:
    """What the text form always has: a value, the values of IN, the two of BETWEEN, or none with EXISTS."""
    value = tuple(leaf.value) if isinstance(leaf.value, list) else leaf.value
    listed = len(value) if isinstance(value, tuple) else 0
    fits, expected = {
        "EXISTS": (value is None, "no value"),
        "IN": (listed >= 1, "a list"),
        "BETWEEN": (listed == 2, "a list of two"),
    }.get(leaf.op, (value is not None and not isinstance(value, tuple), "one value"))
    if not fits:
        raise QueryError(f"{leaf.op} does not take {shown(leaf.value)}", expected=[expected], path=path)
    return value


def _require_comparing(op: Operator, path: str) -> None:
    if op not in COMPARE:
        raise QueryError(f"{op} does not compare numbers", expected=list(COMPARE), path=path)


_FIELDS: Final = {
    "retrieve": "entities",
    "search": "entities",
    "query": "text",
    "vector": "vector",
    "like": "like",
    "for_user": "user",
    "using_profile": "profile",
    "filter": "filter",
    "within": "within",
    "cohort": "cohort",
    "signal": "signal",
    "window": "window",
    "sort_by": "sort",
    "diversity": "diversity",
    "fields": "fields",
    "limit": "limit",
    "cursor": "cursor",
    "after": "after",
    "as_of": "as_of_ms",
    "seed": "seed",
    "explain": "explain",
}
_READERS: Final[dict[str, Any]] = {
    "retrieve": _entities,
    "search": _entities,
    "query": _text,
    "vector": _numbers,
    "like": _item,
    "for_user": _user,
    "using_profile": _text,
    "filter": _predicate,
    "within": _within,
    "cohort": _predicate,
    "signal": _text,
    "window": _name,
    "sort_by": _name,
    "diversity": _diversity,
    "fields": _names,
    "limit": _whole,
    "cursor": _text,
    "after": _text,
    "as_of": _time,
    "seed": _whole,
    "explain": _explain,
}
