"""Where settings come from: flag, then ``TIDAL_<SECTION>_<NAME>``, then ``tidal.toml``, then the default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from schemas.errors import SettingsError, shown
from schemas.nearest import nearest

S = TypeVar("S", bound=msgspec.Struct)

PREFIX: Final = "TIDAL_"
DEFAULT_FILE: Final = Path("tidal.toml")


def load_sections(
    root: type[S],
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    env: Mapping[str, str] | None = None,
    toml_path: Path | None = DEFAULT_FILE,
) -> tuple[S, dict[str, str]]:
    """An instance of ``root`` (a struct of structs with defaults), and where each value came from.

    See ``schemas.settings.load_settings``.
    """
    problems: list[str] = []
    file = _read_file(toml_path, problems)
    sources = (
        _from_flags(flags or {}),
        _from_environment(os.environ if env is None else env),
        _from_file(file, str(toml_path)),
    )
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for section, field in _fields(root):
        value, origin = _value(section, field, sources, problems)
        values.setdefault(section, {})[field.name] = value
        origins[f"{section}.{field.name}"] = origin
    problems += _unknown(root, flags or {}, "the flags") + _unknown(root, file, str(toml_path))
    if problems:
        raise SettingsError(problems)
    sections = {field.name: field.type(**values[field.name]) for field in msgspec.structs.fields(root)}
    return root(**sections), origins


class _Found(NamedTuple):
    """A value and its origin; text from outside a typed file is ``strict=False``: ``"8"`` is a number."""

    value: Any
    origin: str
    strict: bool


_Source: TypeAlias = Callable[[str, str], _Found | None]


def _from_flags(flags: Mapping[str, Mapping[str, Any]]) -> _Source:
    def find(section: str, name: str) -> _Found | None:
        value = flags.get(section, {}).get(name)
        return None if value is None else _Found(value, "flag", strict=False)

    return find


def _from_environment(env: Mapping[str, str]) -> _Source:
    def find(section: str, name: str) -> _Found | None:
        variable = f"{PREFIX}{section}_{name}".upper()
        return _Found(env[variable], variable, strict=False) if variable in env else None

    return find


def _from_file(document: Mapping[str, Any], path: str) -> _Source:
    def find(section: str, name: str) -> _Found | None:
        table = document.get(section)
        if not isinstance(table, Mapping) or name not in table:
            return None
        return _Found(table[name], path, strict=True)

    return find


def _value(
    section: str, field: msgspec.structs.FieldInfo, sources: tuple[_Source, ...], problems: list[str]
) -> tuple[Any, str]:
    found = next((found for source in sources if (found := source(section, field.name))), None)
    if found is None:
        return field.default, "default"
    try:
        return msgspec.convert(found.value, field.type, strict=found.strict), found.origin
    except msgspec.ValidationError as error:
        name = f"{section}.{field.name}"
        where = name if found.origin == "flag" else f"{found.origin} ({name})"
        problems.append(f"{where}: {shown(found.value)} – {_lowered(str(error))}")
        return field.default, found.origin


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]


def _fields(root: type[msgspec.Struct]) -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    for section in msgspec.structs.fields(root):
        for field in msgspec.structs.fields(section.type):
            yield section.name, field


def _read_file(path: Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        problems.append(f"{path}: {error}")
        return {}


def _unknown(root: type[msgspec.Struct], given: Mapping[str, Any], origin: str) -> list[str]:
    """A name that is not one is a typing error that would silently change nothing."""
    known: dict[str, set[str]] = {}
    for section, field in _fields(root):
        known.setdefault(section, set()).add(field.name)
    problems = []
    for section, table in given.items():
        if section not in known or not isinstance(table, Mapping):
            problems.append(f"{origin}: [{section}] is no section{_hint(section, list(known))}")
            continue
        names = [name for name in table if name not in known[section]]
        problems += [
            f"{origin}: {section}.{name} is no setting{_hint(name, list(known[section]))}" for name in names
        ]
    return problems


def _hint(name: str, names: list[str]) -> str:
    near = nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""
