"""The import arrow: schemas ← streams ← materializers ← queryd ← tidal ← benchmarks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

ARROW = ("schemas", "streams", "materializers", "queryd", "tidal", "benchmarks")

# Benchmarks run in a checkout only and share the servers that tests start.
BESIDE_TESTS = ("benchmarks",)

# The read side of the table layer has nothing to do with the agents that write it.
FORBIDDEN_MODULES = {
    "queryd": ("materializers.shards", "materializers.worker", "streams.faust", "faust", "mode"),
}


class Import(NamedTuple):
    """One imported module, and the line that imports it."""

    module: str
    line: int


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every module that a source file imports, also lazily, for types only, or through importlib.

    `package` is the dotted package that the file lives in; relative imports are resolved against it.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield Import(base, node.lineno)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield Import(argument.value, node.lineno)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _is_import_call(node: ast.Call) -> bool:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__"} and bool(node.args)


def violations(source: str, package: str) -> list[str]:
    """What a file of `package` imports against the arrow, as readable lines."""
    layer = package.split(".")[0]
    above = set(ARROW[ARROW.index(layer) + 1 :]) | (set() if layer in BESIDE_TESTS else {"tests"})
    forbidden = FORBIDDEN_MODULES.get(layer, ())
    found = []
    for module, line in imports_of(source, package):
        if module.split(".")[0] in above or any(_is_within(module, name) for name in forbidden):
            found.append(f"line {line}: {layer} may not import {module}")
    return found


def _is_within(module: str, ancestor: str) -> bool:
    return module == ancestor or module.startswith(ancestor + ".")


def _source_files(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def _package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


@pytest.mark.parametrize("layer", ARROW)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    files = _source_files(layer)
    assert files, f"{layer}/ has no source files"
    found = [
        f"{path.relative_to(ROOT)} {violation}"
        for path in files
        for violation in violations(path.read_text(encoding="utf-8"), _package_of(path))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("layer", ARROW)
def test_every_folder_with_sources_is_a_package(layer: str) -> None:
    folders = {path.parent for path in _source_files(layer)}
    bare = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]
    assert not bare, f"without __init__.py these are left out of the wheel: {sorted(bare)}"


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import tidal", "queryd"),
        ("from streams.topics import SIGNALS", "schemas.records"),
        ("def f():\n    from queryd import plan", "materializers.views"),
        ("import importlib\nimportlib.import_module('queryd.http')", "streams"),
        ("from materializers.shards.user_shard import UserShard", "queryd.hot"),
        ("from materializers import worker", "queryd"),
        ("import faust", "queryd"),
        ("from tests.oracle import fold", "tidal.demo"),
    ],
)
def test_the_check_sees_a_violation(source: str, package: str) -> None:
    assert violations(source, package)


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("from schemas.model import Schema", "streams"),
        ("from materializers.tables.reader import TableReader", "queryd.hot"),
        ("from . import columns\nfrom .columns import EventColumns", "schemas.records"),
        ("from ..model import Schema", "schemas.records"),
    ],
)
def test_the_check_allows_what_is_below(source: str, package: str) -> None:
    assert not violations(source, package)


def test_relative_imports_are_resolved() -> None:
    found = {module for module, _ in imports_of("from ..model import Schema", "schemas.records")}
    assert found == {"schemas.model", "schemas.model.Schema"}
