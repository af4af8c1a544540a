"""Reading URL parameters as their route declares them; an unknown or ill-typed one is a 400 that names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multidict import MultiMapping

from queryd.http.problems import SHOWN_MAX, bad_fields, field_problem
from queryd.http.route import Parameter
from queryd.http.shapes import FieldProblem

INTEGER_DIGITS_MAX = 20
_TRUE = frozenset({"1", "true", "yes", "on", ""})
_FALSE = frozenset({"0", "false", "no", "off"})


def read_parameters(declared: Sequence[Parameter], given: MultiMapping[str]) -> dict[str, Any]:
    """Values of the declared parameters that are present, converted to their types.

    Raises ProblemError (400) that lists every unknown, repeated, missing and ill-typed parameter at once.
    """
    by_name = {parameter.name: parameter for parameter in declared}
    errors = [
        field_problem(name, f"there is no parameter {name!r} here", name, by_name)
        for name in sorted(set(given))
        if name not in by_name
    ]
    values: dict[str, Any] = {}
    for parameter in declared:
        texts = given.getall(parameter.name, [])
        if not texts:
            if parameter.required:
                errors.append(FieldProblem(parameter.name, "this parameter is required"))
            continue
        try:
            values[parameter.name] = _value(parameter, texts)
        except ValueError as error:
            errors.append(field_problem(parameter.name, str(error), texts[0], parameter.choices))
    if errors:
        raise bad_fields("bad_parameter", errors)
    return values


def _value(parameter: Parameter, texts: Sequence[str]) -> Any:
    if parameter.many:
        parts = [part for text in texts for part in text.split(",") if part]
        return [_scalar(parameter, part) for part in parts]
    if len(texts) > 1:
        raise ValueError(f"given {len(texts)} times, expected once")
    return _scalar(parameter, texts[0])


def _scalar(parameter: Parameter, text: str) -> Any:
    if parameter.type is bool:
        return _boolean(text)
    if parameter.type is int:
        return _integer(parameter, text)
    if parameter.choices and text not in parameter.choices:
        raise ValueError(f"{text!r} is not one of {', '.join(parameter.choices)}")
    return text


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(f"{text!r} is not a boolean, expected true or false")


def _integer(parameter: Parameter, text: str) -> int:
    try:
        value = int(text if len(text) <= INTEGER_DIGITS_MAX else "")
    except ValueError:
        shown = text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
        raise ValueError(f"{shown!r} is not a whole number of at most {INTEGER_DIGITS_MAX} digits") from None
    if parameter.low is not None and value < parameter.low:
        raise ValueError(f"{value} is below the minimum of {parameter.low}")
    if parameter.high is not None and value > parameter.high:
        raise ValueError(f"{value} is above the maximum of {parameter.high}")
    return value
