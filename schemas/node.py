"""A value of a document, together with its path: reads it as a type, or writes down what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, TypeVar

from schemas.durations import parse_duration
from schemas.errors import Problem
from schemas.nearest import nearest

T = TypeVar("T")

IDENTIFIER: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
PROBLEMS_MAX: Final = 200
"""A report longer than this is no longer read."""


class Report:
    """Collects every problem of one document."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, value: object, expected: str, near: str | None = None) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(path, value, expected, near))


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()


class Node:
    """One value. Each reader returns the value, or reports a problem and returns a harmless default, so that
    reading goes on and one report holds everything."""

    __slots__ = ("path", "report", "value")

    def __init__(self, value: Any, path: str, report: Report) -> None:
        self.value = value
        self.path = path
        self.report = report

    @property
    def given(self) -> bool:
        """Whether the document says anything here; a YAML null says nothing."""
        return self.value is not MISSING and self.value is not None

    def fail(self, expected: str, near: str | None = None) -> None:
        self.report.add(self.path, self.value, expected, near)

    def child(self, key: str) -> Node:
        """The value under ``key``; MISSING where there is none."""
        value = self.value.get(key, MISSING) if isinstance(self.value, dict) else MISSING
        return Node(value, f"{self.path}.{key}" if self.path else key, self.report)

    def keys(self, known: Collection[str]) -> Node:
        """Reports keys that are not ``known``, and anything that is no mapping. Returns the node itself."""
        if not self.given:
            return self
        if not isinstance(self.value, dict):
            self.fail(f"a mapping with keys like {', '.join(list(known)[:3])}")
            return self
        for key in self.value:
            if key not in known:
                child = self.child(str(key))
                self.report.add(child.path, key, f"a known key ({', '.join(known)})", nearest(key, known))
        return self

    def entries(self, identifiers: bool = True) -> Iterator[tuple[str, Node]]:
        """Name and node of each entry of a mapping from names; bad names are reported and still given."""
        if not self.given:
            return
        if not isinstance(self.value, dict):
            self.fail("a mapping from names")
            return
        for key, value in self.value.items():
            child = Node(value, f"{self.path}.{key}" if self.path else str(key), self.report)
            if identifiers and not (isinstance(key, str) and IDENTIFIER.fullmatch(key)):
                self.report.add(
                    child.path, key, "a name of a-z, 0-9 and _, beginning with a letter, up to 64"
                )
            yield str(key), child

    def elements(self) -> list[Node]:
        """The nodes of a list."""
        if not self.given:
            return []
        if not isinstance(self.value, list | tuple):
            self.fail("a list")
            return []
        return [Node(value, f"{self.path}[{index}]", self.report) for index, value in enumerate(self.value)]

    def text(self, default: str = "") -> str:
        return self._scalar(str, "a text", default)

    def boolean(self, default: bool) -> bool:
        return self._scalar(bool, "true or false", default)

    def integer(self, default: int, low: int = 0, high: int = 2**53) -> int:
        value = self._scalar(int, f"a whole number from {low} to {high}", default)
        if low <= value <= high:
            return value
        self.fail(f"a whole number from {low} to {high}")
        return default

    def number(self, default: float, low: float = -1e6, high: float = 1e6) -> float:
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            value = float(self.value) if abs(self.value) <= 2**53 else math.inf
        else:
            value = self._scalar(float, f"a number from {low:g} to {high:g}", default)
        if math.isfinite(value) and low <= value <= high:
            return value
        self.fail(f"a finite number from {low:g} to {high:g}")
        return default

    def choice(self, options: Collection[T], default: T) -> T:
        """One of ``options``."""
        if not self.given:
            return default
        if isinstance(self.value, str):
            for option in options:
                if option == self.value:
                    return option
        names = [str(option) for option in options]
        self.fail(f"one of {', '.join(names)}", nearest(self.value, names))
        return default

    def duration_ms(self, default: int) -> int:
        return self.converted(parse_duration, "a duration like 30m, 24h or 7d", default)

    def converted(self, convert: Callable[[str], T], expected: str, default: T) -> T:
        """A text through ``convert``, whose ValueError is a problem."""
        if not self.given:
            return default
        if isinstance(self.value, str):
            try:
                return convert(self.value)
            except ValueError:
                pass
        self.fail(expected)
        return default

    def required(self, expected: str) -> Node:
        """Reports the absence of the value. Returns the node itself."""
        if not self.given:
            self.report.add(self.path, MISSING, expected)
        return self

    def _scalar(self, kind: type[T], expected: str, default: T) -> T:
        if not self.given:
            return default
        if isinstance(self.value, kind) and (kind is bool or not isinstance(self.value, bool)):
            return self.value
        self.fail(expected)
        return default
