"""An example for each parameter and each reply: shown by the OpenAPI document, held true by its tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

POSITION: Final = "AZGSrXRpZGFsLnNpZ25hbHORkgQA2p4lsQ"
_AT: Final = 1763600000000
_WRITTEN: Final = {"position": POSITION}
_COUNTED: Final = {"users": 9, "users_error": 0.0, "users_estimator": "exact"}
_LEDGER: Final = {
    "id": "item_I",
    "signal": "like",
    "at": _AT,
    "cohort": None,
    "estimator": "exact",
    "all_time": {"count": 12, "sum": 12.0, **_COUNTED},
    "windows": {
        "24h": {
            "count": 10,
            "sum": 10.0,
            "mean": 1.0,
            "velocity": 0.00011574074074074075,
            "acceleration": 0.00009259259259259259,
            **_COUNTED,
            "resolution": "1h",
        }
    },
    "decay": {"24h": 8.73},
    "resolution": "exact",
    "warnings": [],
}
_PAGE: Final = {
    "request_id": "5dbe5ac16267ec84a315145f5dbe5ac1",
    "results": [{"id": "item_I", "rank": 1, "score": 0.93, "exploration": False}],
    "cursor": None,
    "total_estimate": 1,
    "estimator": "exact",
    "freshness_ms": 42,
    "degraded": [],
    "warnings": [],
    "took_us": 850,
}
_EDGE: Final = {"type": "follows", "from": "user_U", "to": "creator_C", "weight": 1.0, "updated_at": _AT}
_ITEM: Final = {"id": "item_I", "creator": "creator_C", "title": "Piano for beginners", "tags": ["piano"]}
_USER: Final = {"id": "user_U", "locale": "US", "age": 21}
_CREATOR: Final = {"id": "creator_C", "name": "Clara"}

ENTITIES: Final[Mapping[str, dict[str, Any]]] = {"items": _ITEM, "users": _USER, "creators": _CREATOR}

PATHS: Final[Mapping[str, tuple[str, str]]] = {
    "type": ("a relationship type of the schema", "follows"),
    "from": ("id of the entity at which the edge begins", "user_U"),
    "to": ("id of the entity at which the edge ends", "creator_C"),
    "erasure": ("the name that the deletion answered", "3-1207"),
}
"""What the parts of a path mean, and an example of each; `{id}` follows from the kind of entity."""

PARAMETERS: Final[Mapping[str, Any]] = {
    "signal": "like",
    "window": "24h",
    "at": _AT,
    "cohort": "locale:US, age:18-24",
    "a": "locale:US, age:18-24",
    "b": "locale:US AND NOT age:18-24",
    "min_count": 10,
    "after": POSITION,
    "state": "liked",
    "cursor": "AaRsaWtlZKZpdGVtX0k",
    "limit": 20,
    "type": "follows",
    "fan_out": 50,
    "direction": "out",
    "order": "weight",
    "query": "piano",
    "prefix": "pia",
    "entities": "items",
    "for_user": "user_U",
    "using_profile": "trending",
    "filter": "unseen",
    "within": "trending",
    "sort_by": "new",
    "max_per_creator": 2,
    "max_per_category": 3,
    "fields": ["title"],
    "as_of": "2025-11-20T00:53:20Z",
    "seed": 7,
    "explain": "analyze",
    "like": "item_I",
}
"""By name: a parameter means the same on every route."""

REPLIES: Final[Mapping[str, Any]] = {
    "publishSignals": {**_WRITTEN, "accepted": 1, "duplicates": None, "rejected": []},
    "getItem": _ITEM,
    "getUser": _USER,
    "getCreator": {
        **_CREATOR,
        "catalog": {"items": 2, "embeddings": {}},
        "followers": 3,
        "edges_in": {"follows": 3},
    },
    **{f"{verb}Item": {"id": "item_I", **_WRITTEN} for verb in ("put", "patch", "delete")},
    **{f"{verb}User": {"id": "user_U", **_WRITTEN} for verb in ("put", "patch")},
    **{f"{verb}Creator": {"id": "creator_C", **_WRITTEN} for verb in ("put", "patch", "delete")},
    "deleteUser": {"id": "user_U", **_WRITTEN, "erasure": "3-1207"},
    **{
        f"put{kind.capitalize()}s": {**_WRITTEN, "written": [{"id": id, **_WRITTEN}], "rejected": []}
        for kind, id in (("item", "item_I"), ("user", "user_U"), ("creator", "creator_C"))
    },
    "getErasure": {
        "erasure": "3-1207",
        "state": "erased",
        "asked_ms": _AT,
        "wiped_ms": None,
        "parts": {"erased": 24, "wiped": 8, "of": 24},
        "rows": {"users": 1, "user_state": 4},
        "remains": [{"topic": "tidal.signals", "until": "retention", "until_ms": 1766192000000}],
    },
    "putRelationship": {"id": "follows/user_U/creator_C", **_WRITTEN},
    "deleteRelationship": {"id": "follows/user_U/creator_C", **_WRITTEN},
    "getRelationship": _EDGE,
    "listRelationships": {"edges": [_EDGE], "total": 1, "complete": True},
    "query": _PAGE,
    "retrieve": _PAGE,
    "search": _PAGE,
    "suggest": {
        "type": "urn:tidal:problem:not-served",
        "title": "Not Implemented",
        "status": 501,
        "detail": "SUGGEST is not served by this version; use /v1/search",
    },
    "getItemSignals": _LEDGER,
    "getCreatorSignals": {**_LEDGER, "id": "creator_C"},
    "getUserState": {"user": "user_U", "states": {"liked": {"count": 1, "items": ["item_I"]}}},
    "getUserRelationships": {
        "user": "user_U",
        "edges": [{"type": "follows", "to": "creator_C", "weight": 1.0, "updated_at": _AT}],
    },
    "getUserPreference": {
        "user": "user_U",
        "slots": {"content": {"updates": 3, "vector": [0.6, 0.8], "short_vector": [0.8, 0.6]}},
    },
    "getUserSegments": {"user": "user_U", "segments": [{"name": "jazz_fans", "until": _AT}]},
    "getTwoHops": {
        "user": "user_U",
        "type": "follows",
        "reached": [{"id": "creator_D", "weight": 1.0, "paths": 1}],
    },
    "getSimilarUsers": {
        "user": "user_U",
        "state": "liked",
        "users": [{"id": "user_V", "score": 0.5, "shared": 2}],
    },
    "listCohorts": {
        "cohorts": [{"name": "young_us", "predicate": "locale:US, age:18-24"}],
        "segments": [
            {"name": "jazz_fans", "predicate": "count(like, category = jazz, 30d) >= 5", "users": 310}
        ],
        "dimensions": ["locale", "age"],
    },
    "getCohortSize": {
        "cohort": "locale:US, age:18-24",
        "users": 1200,
        "estimator": "exact",
        "warnings": [],
    },
    "compareCohorts": {
        "a": {"cohort": "locale:US, age:18-24", "users": 1200, "events": 4000},
        "b": {"cohort": "locale:US AND NOT age:18-24", "users": 5100, "events": 9000},
        "signal": "view",
        "window": "24h",
        "at": _AT,
        "confidence": 0.95,
        "min_count": 5,
        "estimator": "exact",
        "error_bound": 0.0,
        "results": [
            {
                "id": "item_I",
                "rank": 1,
                "count_a": 40,
                "count_b": 18,
                "rate_a": 0.01,
                "rate_b": 0.002,
                "lift": 4.925334,
                "lift_low": 2.845267,
                "lift_high": 8.526058,
            }
        ],
        "items_compared": 210,
        "items_left_out": 75,
        "warnings": [],
    },
    "livez": {"status": "alive"},
    "readyz": {"ready": True, "why": [], "progress": {"items": 2000, "lag_records": 0, "lag_ms": 0}},
}
"""By operation; a schema, a status and this document itself are better read from a running daemon."""

PROBLEM: Final = {
    "type": "urn:tidal:problem:bad_parameter",
    "title": "Bad Request",
    "status": 400,
    "detail": "limt: there is no parameter 'limt' here; did you mean 'limit'?",
    "errors": [
        {
            "path": "limt",
            "message": "there is no parameter 'limt' here; did you mean 'limit'?",
            "nearest": "limit",
        }
    ],
    "request_id": "5dbe5ac16267ec84a315145f",
}
