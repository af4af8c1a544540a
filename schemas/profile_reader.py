"""Reads the profiles of a document: every version of each, with what it inherits resolved."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from schemas.durations import WINDOWS
from schemas.model import (
    CURVES,
    READS,
    SCOPES,
    SOURCES,
    TERMS,
    Diversity,
    Profile,
    SourceRef,
    Term,
)
from schemas.nearest import nearest
from schemas.node import Node

T = TypeVar("T")

CANDIDATES_MAX: Final = 10_000
"""Candidates of one source: more than this no page needs, and scoring stays under a millisecond."""

LEVELS_MAX: Final = 16

_PROFILE_KEYS: Final = (
    "extends",
    "version",
    "signal",
    "window",
    "sources",
    "terms",
    "gates",
    "normalize",
    "composition",
    "diversity",
)
_TERM_KEYS: Final = (
    "term",
    "weight",
    "signal",
    "read",
    "window",
    "half_life",
    "over",
    "scope",
    "curve",
    "scale",
    "offset",
)


def read_profiles(node: Node) -> tuple[Profile, ...]:
    """All versions of all profiles. ``node`` maps a name to one version, or to a list of versions."""
    return _Inheritance(node).resolved()


class _Inheritance:
    """Reads parents before children, whatever the order in which they are declared."""

    def __init__(self, node: Node) -> None:
        self._versions: dict[tuple[str, int], Node] = {}
        self._newest: dict[str, int] = {}
        self._read: dict[tuple[str, int], Profile] = {}
        for name, child in node.entries():
            for version_node in child.elements() if isinstance(child.value, list) else [child]:
                self._register(name, version_node)

    def resolved(self) -> tuple[Profile, ...]:
        return tuple(self._profile(key, ()) for key in self._versions)

    def _register(self, name: str, node: Node) -> None:
        version = node.required("a profile").keys(_PROFILE_KEYS).child("version").integer(1, 1)
        if (name, version) in self._versions:
            node.child("version").fail(f"each version of {name} once")
        self._versions[name, version] = node
        self._newest[name] = max(version, self._newest.get(name, 0))

    def _profile(self, key: tuple[str, int], children: tuple[tuple[str, int], ...]) -> Profile:
        if key not in self._read:
            node = self._versions[key]
            parent = self._parent(node.child("extends"), (*children, key))
            self._read[key] = _profile(key, node, parent)
        return self._read[key]

    def _parent(self, node: Node, children: tuple[tuple[str, int], ...]) -> Profile:
        reference = node.text()
        if not reference:
            return Profile(name="")
        name, _, version = reference.partition("@")
        key = (name, int(version)) if version.isdecimal() else (name, self._newest.get(name, 0))
        if key not in self._versions:
            node.fail("a declared profile", nearest(name, self._newest))
            return Profile(name="")
        if key in children or len(children) > LEVELS_MAX:
            node.fail(f"a profile that does not inherit from this one, at most {LEVELS_MAX} levels up")
            return Profile(name="")
        return self._profile(key, children)


def _profile(key: tuple[str, int], node: Node, parent: Profile) -> Profile:
    sources, terms, gates = node.child("sources"), node.child("terms"), node.child("gates")
    return Profile(
        name=key[0],
        version=key[1],
        extends=node.child("extends").text() or None,
        signal=node.child("signal").text(parent.signal),
        window=node.child("window").choice(tuple(WINDOWS), parent.window),
        sources=tuple(map(_source, sources.elements())) if sources.given else parent.sources,
        terms=tuple(map(_term, terms.elements())) if terms.given else parent.terms,
        gates=tuple(gate.text() for gate in gates.elements()) if gates.given else parent.gates,
        normalize=_one_of(node, "normalize", ("minmax", "none"), parent.normalize),
        composition=_one_of(node, "composition", ("sum", "product"), parent.composition),
        diversity=_diversity(node.child("diversity")) if node.child("diversity").given else parent.diversity,
    )


def _source(node: Node) -> SourceRef:
    """``trending``, or ``{source: trending, limit: 300}``."""
    if isinstance(node.value, str):
        return SourceRef(source=node.choice(SOURCES, SOURCES[0]))
    node.required("a source of candidates").keys(("source", "limit"))
    source = node.child("source").required(f"one of {', '.join(SOURCES)}").choice(SOURCES, SOURCES[0])
    return SourceRef(source=source, limit=node.child("limit").integer(500, 1, CANDIDATES_MAX))


def _term(node: Node) -> Term:
    node.required("a term like {term: base, weight: 1}").keys(_TERM_KEYS)
    node.child("term").required(f"one of {', '.join(TERMS)}")
    return Term(
        term=_one_of(node, "term", TERMS, "base"),
        weight=node.child("weight").number(1.0),
        signal=node.child("signal").text() or None,
        read=_one_of(node, "read", (*READS, None), None),
        window=_one_of(node, "window", (*WINDOWS, None), None),
        half_life=node.child("half_life").text() or None,
        over=node.child("over").text() or None,
        scope=_one_of(node, "scope", SCOPES, "global"),
        curve=_one_of(node, "curve", (*CURVES, None), None),
        scale_ms=node.child("scale").duration_ms(1) if node.child("scale").given else None,
        offset_ms=node.child("offset").duration_ms(0),
    )


def _diversity(node: Node) -> Diversity:
    node.keys(("max_per_creator", "max_per_category", "format_mix", "mmr"))
    return Diversity(
        max_per_creator=_optional_count(node.child("max_per_creator")),
        max_per_category=_optional_count(node.child("max_per_category")),
        format_mix={
            name: share.number(0.0, 0.0, 1.0)
            for name, share in node.child("format_mix").entries(identifiers=False)
        },
        mmr=node.child("mmr").number(0.0, 0.0, 1.0) if node.child("mmr").given else None,
    )


def _optional_count(node: Node) -> int | None:
    return node.integer(1, 1, CANDIDATES_MAX) if node.given else None


def _one_of(node: Node, key: str, options: tuple[Any, ...], default: Any) -> Any:
    return node.child(key).choice([option for option in options if option is not None], default)
