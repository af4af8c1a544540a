"""From any form of a schema – YAML, JSON, a file, a mapping – to a validated ``Schema``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from schemas.document_form import to_document
from schemas.documents import parse_document
from schemas.errors import Problem, SchemaError
from schemas.interpret import interpret
from schemas.model import Schema
from schemas.node import Report
from schemas.validation import validate

__all__ = ["default_document", "load_schema", "to_document"]

_DEFAULT_FILE: Final = Path(__file__).parent / "default.yaml"
_MERGED_BY_NAME: Final = ("signals", "relationships", "segments", "cohorts", "profiles", "limits", "roles")


def load_schema(source: str | Path | Mapping[str, Any]) -> Schema:
    """The schema in ``source``: a mapping, the text of a document (YAML or JSON), or the path of one.

    A string of one line that holds no ``:`` and no brace is a path.

    What the document leaves out, the default schema gives: signals, relationships, profiles, roles and limits
    are added by name, states are joined, and an entity's fields, embeddings or dimensions are the default's
    where they are not given. ``extends: none`` at the top starts from nothing instead.

    Raises:
        SchemaError: with every problem of the document.
        OSError: the file cannot be read.
    """
    document = source if isinstance(source, Mapping) else parse_document(_text(source))
    report = Report()
    schema = interpret(_with_defaults(dict(document), report), report)
    problems = [*report.problems, *validate(schema)]
    if problems:
        raise SchemaError(_once_for_each_path(problems))
    return schema


@cache
def default_document() -> dict[str, Any]:
    """The document of the default schema. Do not change it: it is shared."""
    return parse_document(_DEFAULT_FILE.read_text(encoding="utf-8"))


def _text(source: str | Path) -> str:
    if isinstance(source, Path):
        return source.read_text(encoding="utf-8")
    is_path = source.strip() != "" and not any(mark in source for mark in "\n:{")
    return Path(source).read_text(encoding="utf-8") if is_path else source


def _with_defaults(document: dict[str, Any], report: Report) -> dict[str, Any]:
    base = document.get("extends") or "default"
    if base == "none":
        return document
    if base != "default":
        report.add("extends", base, "default or none")
    defaults = default_document()
    merged = {**document, "entities": _entities(defaults["entities"], document.get("entities"))}
    for section in _MERGED_BY_NAME:
        given = document.get(section)
        if given is not None and not isinstance(given, Mapping):
            # Reported here and replaced: what refers to a default name would only make noise.
            report.add(section, given, "a mapping from names")
            given = None
        merged[section] = {**defaults.get(section, {}), **(given or {})}
    merged["states"] = _joined(defaults["states"], document.get("states"))
    if document.get("co_engagement") is None:
        merged["co_engagement"] = defaults["co_engagement"]
    return merged


def _joined(defaults: list[Any], given: Any) -> Any:
    if given is None:
        return defaults
    if not isinstance(given, list):
        return given
    return [*defaults, *(state for state in given if state not in defaults)]


def _entities(defaults: dict[str, Any], given: Any) -> Any:
    if given is None:
        return defaults
    if not isinstance(given, Mapping):
        return given
    return {**given, **{kind: _entity(defaults[kind], given.get(kind)) for kind in defaults}}


def _entity(default: dict[str, Any], given: Any) -> Any:
    if given is None:
        return default
    if not isinstance(given, Mapping):
        return given
    merged = {**default, **given}
    fields = merged.get("fields")
    if "dimensions" in default and "dimensions" not in given and isinstance(fields, Mapping):
        # The default's dimensions follow the default's fields: those that were not taken over bring none.
        kept = {name: entry for name, entry in default["dimensions"].items() if entry["field"] in fields}
        merged["dimensions"] = kept
    return merged


def _once_for_each_path(problems: list[Problem]) -> list[Problem]:
    """A value of the wrong type has a harmless one in its place: what is said of that one is no news."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.path, problem)
    return list(first.values())
