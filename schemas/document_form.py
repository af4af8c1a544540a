"""From a schema back to a document: the one that is stored in ``tidal.schema`` and shown to people."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.durations import format_duration
from schemas.model import (
    Decay,
    Dimension,
    EntityDef,
    Profile,
    RelationshipDef,
    Schema,
    SignalDef,
    Term,
)
from schemas.predicate_text import to_text


def to_document(schema: Schema) -> dict[str, Any]:
    """A document that loads to an equal schema; complete in itself (``extends: none``)."""
    return {
        "name": schema.name,
        "version": schema.version,
        "extends": "none",
        "entities": {kind: _entity(entity) for kind, entity in schema.entities.items()},
        "signals": {name: _signal(signal) for name, signal in schema.signals.items()},
        "relationships": {name: _relationship(edge) for name, edge in schema.relationships.items()},
        "states": list(schema.states),
        "co_engagement": list(schema.co_engagement),
        "roles": {role: list(signals) for role, signals in schema.roles.items()},
        "segments": {name: segment.text for name, segment in schema.segments.items()},
        "cohorts": {name: to_text(cohort.predicate) for name, cohort in schema.cohorts.items()},
        "profiles": _profiles(schema),
        "limits": msgspec.structs.asdict(schema.limits),
    }


def _entity(entity: EntityDef) -> dict[str, Any]:
    document: dict[str, Any] = {
        "fields": {name: field.type for name, field in entity.fields.items()},
        "embeddings": {
            name: {"dim": slot.dim, "metric": slot.metric} for name, slot in entity.embeddings.items()
        },
        "strict": entity.strict,
    }
    if entity.kind == "user":
        document["dimensions"] = {name: _dimension(entry) for name, entry in entity.dimensions.items()}
    return document


def _dimension(dimension: Dimension) -> dict[str, Any]:
    document: dict[str, Any] = {"field": dimension.field}
    if dimension.buckets:
        document["buckets"] = {bucket.label: [bucket.low, bucket.high] for bucket in dimension.buckets}
    return document


def _signal(signal: SignalDef) -> dict[str, Any]:
    return _given(
        category=signal.category,
        polarity=signal.polarity,
        decay=_decay(signal.decay),
        windows=list(signal.windows),
        value_range=None if signal.value_range is None else list(signal.value_range),
        state=_names(signal.state),
        clears=_names(signal.clears),
        relationship=dict(signal.relationship),
        preference=signal.preference,
        dedup=signal.dedup,
        distinct_users=signal.distinct_users,
    )


def _decay(decay: Decay) -> str | dict[str, Any]:
    match decay.kind:
        case "exponential":
            return {"exponential": list(decay.labels)}
        case "linear":
            return {"linear": format_duration(decay.lifetime_ms)}
        case "none":
            return "none"


def _names(names: tuple[str, ...]) -> str | list[str] | None:
    """One name as people write it, none as nothing."""
    if len(names) > 1:
        return list(names)
    return names[0] if names else None


def _relationship(edge: RelationshipDef) -> dict[str, Any]:
    half_life = None if edge.half_life_ms is None else format_duration(edge.half_life_ms)
    target = None if edge.target == "creator" else edge.target
    return _given(explicit=edge.explicit, hides=edge.hides, target=target, half_life=half_life)


def _profiles(schema: Schema) -> dict[str, list[dict[str, Any]]]:
    documents: dict[str, list[dict[str, Any]]] = {}
    for profile in schema.profile_versions:
        documents.setdefault(profile.name, []).append(_profile(profile))
    return documents


def _profile(profile: Profile) -> dict[str, Any]:
    return _given(
        version=profile.version,
        extends=profile.extends,
        signal=profile.signal,
        window=profile.window,
        sources=[msgspec.structs.asdict(source) for source in profile.sources],
        terms=[_term(term) for term in profile.terms],
        gates=list(profile.gates),
        normalize=profile.normalize,
        composition=profile.composition,
        diversity=None if profile.diversity is None else _given(**msgspec.structs.asdict(profile.diversity)),
    )


def _term(term: Term) -> dict[str, Any]:
    document = msgspec.structs.asdict(term)
    scale_ms, offset_ms = document.pop("scale_ms"), document.pop("offset_ms")
    document["scale"] = None if scale_ms is None else format_duration(scale_ms)
    document["offset"] = format_duration(offset_ms) if offset_ms else None
    return _given(**document)


def _given(**parts: Any) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if value is not None}
