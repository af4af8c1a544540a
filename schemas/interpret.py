"""From a merged document to the model. Shapes and types are checked here, references in ``validation``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar, cast, get_args

import msgspec

from schemas.durations import WINDOWS, format_duration, parse_duration
from schemas.errors import PredicateError
from schemas.ids import code_of
from schemas.model import (
    CATEGORIES,
    EDGE_TARGETS,
    ENTITY_KINDS,
    METRICS,
    Bucket,
    Cohort,
    Decay,
    Dimension,
    EmbeddingSlot,
    EntityDef,
    EntityKind,
    FieldDef,
    FieldType,
    Limits,
    RelationshipDef,
    Schema,
    Segment,
    SignalDef,
    StateDef,
)
from schemas.node import Node, Report
from schemas.predicate_ast import And
from schemas.predicate_parser import parse_predicate
from schemas.profile_reader import read_profiles
from schemas.sort_names import ROLES

T = TypeVar("T")

TOP_KEYS: Final = (
    "name",
    "version",
    "extends",
    "entities",
    "signals",
    "relationships",
    "states",
    "co_engagement",
    "roles",
    "segments",
    "cohorts",
    "profiles",
    "limits",
)
EMBEDDING_DIM_MAX: Final = 16_384
HALF_LIVES_MAX: Final = 8
"""Accumulators of one signal; each costs 8 bytes in every active cell."""


def interpret(document: dict[str, Any], report: Report) -> Schema:
    """The schema of ``document``; what is wrong goes to ``report``, a harmless value takes its place."""
    top = Node(document, "", report).keys(TOP_KEYS)
    limits = _limits(top.child("limits"))
    return Schema(
        name=top.child("name").text("tidal"),
        version=top.child("version").integer(1, 1),
        entities=_entities(top.child("entities").keys(ENTITY_KINDS)),
        signals=_named(top.child("signals"), _signal),
        relationships=_named(top.child("relationships"), _relationship),
        states=_states(top.child("states")),
        co_engagement=_names(top.child("co_engagement"), "the name of a state"),
        roles=_roles(top.child("roles").keys(ROLES)),
        segments=_named(top.child("segments"), _segment),
        cohorts=_named(top.child("cohorts"), partial(_cohort, limits.max_predicate_depth)),
        profile_versions=read_profiles(top.child("profiles")),
        limits=limits,
    )


def _named(node: Node, read: Callable[[str, Node], T]) -> dict[str, T]:
    return {name: read(name, child) for name, child in node.entries()}


def _entities(node: Node) -> dict[str, EntityDef]:
    return {kind: _entity(kind, node.child(kind)) for kind in get_args(EntityKind)}


def _entity(kind: EntityKind, node: Node) -> EntityDef:
    node.keys(("fields", "embeddings", "dimensions", "strict"))
    if kind != "user" and node.child("dimensions").given and node.child("dimensions").value != {}:
        node.child("dimensions").fail("nothing: only users have dimensions")
    return EntityDef(
        kind=kind,
        fields=_named(node.child("fields"), _field),
        embeddings=_named(node.child("embeddings"), _embedding),
        dimensions=_named(node.child("dimensions"), _dimension) if kind == "user" else {},
        strict=node.child("strict").boolean(False),
    )


def _field(name: str, node: Node) -> FieldDef:
    types = cast(tuple[FieldType, ...], get_args(FieldType))
    return FieldDef(name=name, type=node.required(f"one of {', '.join(types)}").choice(types, "keyword"))


def _embedding(name: str, node: Node) -> EmbeddingSlot:
    node.keys(("dim", "metric"))
    dim = node.child("dim").required("the number of floats in a vector").integer(1, 1, EMBEDDING_DIM_MAX)
    return EmbeddingSlot(name=name, dim=dim, metric=node.child("metric").choice(METRICS, "cosine"))


def _dimension(name: str, node: Node) -> Dimension:
    node.keys(("field", "buckets"))
    buckets = tuple(
        _bucket(label, child) for label, child in node.child("buckets").entries(identifiers=False)
    )
    return Dimension(name=name, field=node.child("field").text(name), buckets=buckets)


def _bucket(label: str, node: Node) -> Bucket:
    ends = node.elements()
    if len(ends) != 2:
        node.fail("[low, high], high null for an open end")
        return Bucket(label=label, low=0.0, high=None)
    low = ends[0].required("the lowest number of the bucket").number(0.0, -1e15, 1e15)
    high = ends[1].number(0.0, -1e15, 1e15) if ends[1].given else None
    return Bucket(label=label, low=low, high=high)


def _signal(name: str, node: Node) -> SignalDef:
    node.required("what the signal is, {} for a plain counter").keys(_SIGNAL_KEYS)
    return SignalDef(
        name=name,
        code=code_of(name),
        category=node.child("category").choice(CATEGORIES, "exposure"),
        polarity=node.child("polarity").integer(0, -1, 1),
        decay=_decay(node.child("decay")),
        windows=_windows(node.child("windows")),
        value_range=_value_range(node.child("value_range")),
        state=_names(node.child("state"), "the name of a state"),
        clears=_names(node.child("clears"), "the name of a state"),
        relationship={
            edge: delta.required("a number to add").number(0.0, -1.0, 1.0)
            for edge, delta in node.child("relationship").entries()
        },
        preference=node.child("preference").number(0.0, -100.0, 100.0),
        dedup="none" if node.child("dedup").choice(("default", "none"), "default") == "none" else "default",
        distinct_users=node.child("distinct_users").boolean(False),
    )


_SIGNAL_KEYS: Final = (
    "category",
    "polarity",
    "decay",
    "windows",
    "value_range",
    "state",
    "clears",
    "relationship",
    "preference",
    "dedup",
    "distinct_users",
)
_DECAY_FORMS: Final = "none, {exponential: [1h, 24h]} or {linear: 7d}"


def _decay(node: Node) -> Decay:
    if not node.given or node.value == "none":
        return Decay()
    if not isinstance(node.value, dict) or len(node.value) != 1:
        node.fail(_DECAY_FORMS)
        return Decay()
    node.keys(("exponential", "linear"))
    if "linear" in node.value:
        return Decay(kind="linear", lifetime_ms=node.child("linear").required("a duration").duration_ms(1))
    return _exponential(node.child("exponential"))


def _exponential(node: Node) -> Decay:
    if isinstance(node.value, str):
        return Decay(kind="exponential", half_lives_ms=(node.duration_ms(1),))
    elements = node.elements()
    if not 1 <= len(elements) <= HALF_LIVES_MAX:
        node.fail(f"1 to {HALF_LIVES_MAX} half-lives like 24h")
    half_lives_ms = [element.required("a half-life").duration_ms(1) for element in elements]
    return Decay(kind="exponential", half_lives_ms=tuple(sorted(set(half_lives_ms[:HALF_LIVES_MAX]))))


def _windows(node: Node) -> tuple[str, ...]:
    """Deduplicated, from the shortest to all_time; ``1d`` is ``24h``."""
    given = {element.converted(_window, f"one of {', '.join(WINDOWS)}", "") for element in node.elements()}
    return tuple(name for name in WINDOWS if name in given)


def _window(text: str) -> str:
    name = text if text in WINDOWS else format_duration(parse_duration(text))
    if name not in WINDOWS:
        raise ValueError(f"{text!r} is no window")
    return name


def _value_range(node: Node) -> tuple[float, float] | None:
    if not node.given:
        return None
    ends = node.elements()
    if len(ends) != 2:
        node.fail("[low, high]")
        return None
    return ends[0].number(0.0), ends[1].number(0.0)


def _relationship(name: str, node: Node) -> RelationshipDef:
    node.keys(("explicit", "hides", "target", "half_life"))
    half_life = node.child("half_life")
    return RelationshipDef(
        name=name,
        code=code_of(name),
        explicit=node.child("explicit").boolean(False),
        hides=node.child("hides").boolean(False),
        target=node.child("target").choice(EDGE_TARGETS, "creator"),
        half_life_ms=half_life.duration_ms(1) if half_life.given else None,
    )


def _states(node: Node) -> dict[str, StateDef]:
    names = [element.required("the name of a state") for element in node.elements()]
    entries = Node({str(name.value): name.value for name in names}, node.path, node.report).entries()
    if len({str(name.value) for name in names}) < len(names):
        node.fail("each state once")
    return {name: StateDef(name=name, code=code_of(name)) for name, _ in entries}


def _names(node: Node, what: str) -> tuple[str, ...]:
    """One name or a list of names, each once."""
    if isinstance(node.value, str):
        return (node.value,)
    names = tuple(element.required(what).text() for element in node.elements())
    if len(set(names)) < len(names):
        node.fail("each name once")
    return names


def _roles(node: Node) -> dict[str, tuple[str, ...]]:
    """The signals of each role; a role that is declared as nothing has none."""
    roles = {name: _names(child, "the name of a signal") for name, child in node.entries() if name in ROLES}
    return {name: signals for name, signals in roles.items() if signals}


def _segment(name: str, node: Node) -> Segment:
    return Segment(name=name, text=node.required("a condition on a user's own signals").text())


def _cohort(depth_max: int, name: str, node: Node) -> Cohort:
    text = node.required("a predicate like locale:US, age:18-24").text()
    try:
        return Cohort(name=name, predicate=parse_predicate(text, depth_max))
    except PredicateError as error:
        if node.given and isinstance(node.value, str):
            node.fail(f"a predicate: {error.summary}", error.nearest)
        return Cohort(name=name, predicate=And(()))


def _limits(node: Node) -> Limits:
    defaults = msgspec.structs.asdict(Limits())
    node.keys(tuple(defaults))
    return Limits(
        **{
            name: node.child(name).integer(value, low=0 if name in _LIMITS_THAT_MAY_BE_ZERO else 1)
            for name, value in defaults.items()
        }
    )


_LIMITS_THAT_MAY_BE_ZERO: Final = (
    "min_cohort_size",
    "ts_ms_min",
    "future_skew_ms",
    "created_at_future_ms",
    "distinct_users_days",
)
