"""From the text of a schema, YAML or JSON, to a plain document of dicts, lists and scalars.

YAML is read by the rules of YAML 1.2: ``no`` and ``1:30`` are text, not false and not 90. A key that stands
twice is an error and not a silent loss. Anchors are refused: a few of them expand to gigabytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any, Final, cast

import yaml

from schemas.errors import Problem, SchemaError

DOCUMENT_BYTES_MAX: Final = 1 << 20
"""A schema with 1,000 signals and cohorts is a tenth of this."""


def parse_document(text: str) -> dict[str, Any]:
    """The document in ``text``, JSON if it begins with ``{`` and parses as such, else YAML.

    Raises:
        SchemaError: a syntax error with line and column, a key twice, an anchor, or no mapping at the top.
    """
    if len(text) > DOCUMENT_BYTES_MAX:
        raise SchemaError([Problem("", f"{len(text)} characters", f"at most {DOCUMENT_BYTES_MAX}")])
    document = _parse(text)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SchemaError([Problem("", document, "a mapping with keys like name, entities, signals")])
    return document


def _parse(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique_pairs)
        except (json.JSONDecodeError, RecursionError):
            pass  # a YAML flow mapping begins with a brace as well; its parser gives the better message
    try:
        # The loader is a SafeLoader: it builds nothing but plain data.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SchemaError([Problem("", str(error), "valid YAML or JSON")]) from error
    except RecursionError as error:
        raise SchemaError([Problem("", "the document", "fewer levels of nesting")]) from error


def _syntax_error(error: yaml.MarkedYAMLError) -> SchemaError:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return SchemaError([Problem(where, error.problem, "valid YAML or JSON")])


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError([Problem(twice, twice, "each key once in its object")])
    return keys


class _Loader(yaml.SafeLoader):
    """Plain data by the core schema of YAML 1.2, with unique keys and without anchors."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = cast(Any, self).peek_event()
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not supported; write the value again", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]{1,18}", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        _tag, re.compile(f"^(?:{_pattern})$"), [first if first != "\0" else "" for first in _first]
    )
