"""The schema as the engine uses it: immutable declarations, references resolved, durations in ms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import msgspec

from schemas.cohort_profile import encode_profile
from schemas.durations import ALL_TIME, DURATION_MS_MAX, format_duration
from schemas.predicate_ast import Predicate
from schemas.sort_names import MEASURED_SOURCES

EntityKind: TypeAlias = Literal["item", "user", "creator"]
FieldType: TypeAlias = Literal["text", "keyword", "tags", "int", "float", "bool", "time"]
Metric: TypeAlias = Literal["cosine", "dot", "euclid"]

ENTITY_KINDS: Final = ("item", "user", "creator")
METRICS: Final = ("cosine", "dot", "euclid")
STATUSES: Final = ("active", "archived", "deleted")
CATEGORIES: Final = ("exposure", "consumption", "positive", "negative", "discovery")
SOURCES: Final = (
    "trending",
    "newest",
    "following",
    "preference_neighbours",
    "item_neighbours",
    "text",
    "collaborative",
    "exploration",
    "matching",
    *MEASURED_SOURCES,
)
TERMS: Final = ("base", "personalization", "relationship", "signal", "recency", "penalty")
READS: Final = ("count", "sum", "mean", "velocity", "acceleration", "decay", "ratio")
SCOPES: Final = ("global", "cohort", "creator")
EDGE_TARGETS: Final = ("creator", "item")
CURVES: Final = ("exponential", "linear", "gaussian")


class FieldDef(msgspec.Struct, frozen=True, kw_only=True):
    """A declared field: typed, filterable; ``text`` goes to the text index, ``time`` is epoch ms."""

    name: str
    type: FieldType


class EmbeddingSlot(msgspec.Struct, frozen=True, kw_only=True):
    """A place for one vector of ``dim`` float32; with ``cosine`` it is stored at unit length."""

    name: str
    dim: int
    metric: Metric = "cosine"


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled range of a number, both ends included; ``high`` None is open."""

    label: str
    low: float
    high: float | None


class Dimension(msgspec.Struct, frozen=True, kw_only=True):
    """A user attribute that cohorts are made of."""

    name: str
    field: str
    buckets: tuple[Bucket, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The only values there are, when the dimension has buckets; else ``()``."""
        return tuple(bucket.label for bucket in self.buckets)

    def value_of(self, attributes: Mapping[str, Any]) -> str | None:
        """The value of a user in this dimension, None if the user belongs to none.

        With buckets: the label of the first bucket that holds the number, or the label itself.
        """
        value = attributes.get(self.field)
        if value is None or value == "":
            return None
        if self.buckets:
            return self._bucket_of(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if isinstance(value, str) else str(value)

    def _bucket_of(self, value: Any) -> str | None:
        if isinstance(value, str):
            return value if value in self.labels else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        for bucket in self.buckets:
            if bucket.low <= value and (bucket.high is None or value <= bucket.high):
                return bucket.label
        return None


class EntityDef(msgspec.Struct, frozen=True, kw_only=True):
    """What is declared of items, users or creators; ``strict`` refuses fields that are not declared."""

    kind: EntityKind
    fields: dict[str, FieldDef] = {}
    embeddings: dict[str, EmbeddingSlot] = {}
    dimensions: dict[str, Dimension] = {}
    strict: bool = False


class Decay(msgspec.Struct, frozen=True, kw_only=True):
    """How a signal's score fades: one accumulator for each half-life, or one linear, or none."""

    kind: Literal["exponential", "linear", "none"] = "none"
    half_lives_ms: tuple[int, ...] = ()
    lifetime_ms: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Half-lives as written (``("1h", "24h")``), in the order of the accumulators."""
        return tuple(format_duration(half_life_ms) for half_life_ms in self.half_lives_ms)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores there are: half-lives, the lifetime, or ``all_time`` where nothing fades."""
        if self.kind == "linear":
            return (format_duration(self.lifetime_ms),)
        return self.labels or (ALL_TIME,)


class SignalDef(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of event and all that one of them moves.

    ``state`` are the user states it sets, ``clears`` those it takes away; ``relationship`` the delta of each
    implicit edge type; ``preference`` the weight p of the preference update (0 = none); ``distinct_users``:
    ledgers tell how many users it came from.
    """

    name: str
    code: int
    category: str = "exposure"
    polarity: int = 0
    decay: Decay = Decay()
    windows: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    state: tuple[str, ...] = ()
    clears: tuple[str, ...] = ()
    relationship: dict[str, float] = {}
    preference: float = 0.0
    dedup: Literal["default", "none"] = "default"
    distinct_users: bool = False


class RelationshipDef(msgspec.Struct, frozen=True, kw_only=True):
    """An edge type: ``explicit`` ones are written by users, the others follow from signals.

    ``target``: what an implicit edge leads to, the item of the signal or its creator; an explicit one joins
    any two entities. ``hides``: the target's items are left out of the source's queries.
    """

    name: str
    code: int
    explicit: bool = False
    hides: bool = False
    target: Literal["creator", "item"] = "creator"
    half_life_ms: int | None = None


class StateDef(msgspec.Struct, frozen=True, kw_only=True):
    """A set of items that each user has (seen, liked …)."""

    name: str
    code: int


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A behavioural segment, declared over a user's own signals."""

    name: str
    text: str


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """A named predicate over dimensions, segments and other cohorts."""

    name: str
    predicate: Predicate


class SourceRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a profile's candidates come from, and how many at most."""

    source: str
    limit: int = 500


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One summand (or factor) of a score.

    ``signal``, ``read``, ``window`` or ``half_life``, ``over`` (the denominator of a ratio) and ``scope`` say
    which aggregate; ``curve`` with ``scale_ms`` and ``offset_ms`` say how age counts.
    """

    term: Literal["base", "personalization", "relationship", "signal", "recency", "penalty"]
    weight: float = 1.0
    signal: str | None = None
    read: Literal["count", "sum", "mean", "velocity", "acceleration", "decay", "ratio"] | None = None
    window: str | None = None
    half_life: str | None = None
    over: str | None = None
    scope: Literal["global", "cohort", "creator"] = "global"
    curve: Literal["exponential", "linear", "gaussian"] | None = None
    scale_ms: int | None = None
    offset_ms: int = 0


class Diversity(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a page: what exceeds one is demoted, never lost."""

    max_per_creator: int | None = None
    max_per_category: int | None = None
    format_mix: dict[str, float] = {}
    mmr: float | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a ranking, with everything it inherits already in it."""

    name: str
    version: int = 1
    extends: str | None = None
    signal: str = "view"
    window: str = "24h"
    sources: tuple[SourceRef, ...] = ()
    terms: tuple[Term, ...] = ()
    gates: tuple[str, ...] = ()
    normalize: Literal["minmax", "none"] = "minmax"
    composition: Literal["sum", "product"] = "sum"
    diversity: Diversity | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of requests and of state that are part of the site's contract; each has a test."""

    max_query_limit: int = 500
    """Largest LIMIT: a page, not an export."""
    min_cohort_size: int = 0
    """A cohort query over fewer distinct users is refused; 0 is off."""
    max_body_bytes: int = 1 << 20
    max_array_events: int = 1_000
    """Events in one HTTP array; ten group commits."""
    max_predicate_depth: int = 16
    max_query_text_bytes: int = 8_192
    deadline_ms: int = 250
    max_id_bytes: int = 256
    future_skew_ms: int = 300_000
    """How far an event may lie after its record's own time: clocks of phones differ by minutes."""
    ts_ms_min: int = 0
    """Events before this time are refused; raise it where a 1970 date can only be a fault."""
    created_at_future_ms: int = 86_400_000
    """Content may be announced a day ahead; a date beyond that is a unit mistaken."""
    late_minute_horizon_ms: int = 7_200_000
    """Older events go to hour buckets: no minute window can still see them."""
    hour_buckets_kept_ms: int = DURATION_MS_MAX
    """Days that ended so long ago, by the log's own time, merge their hours: a count of a past time is then
    exact at the day. By default history is kept by the hour for ever; at least 32 days, what windows need."""
    dedup_generation_ms: int = 600_000
    parked_events_max: int = 1_000_000
    """Events of one user partition that wait for their item's record; about 100 bytes each."""
    distinct_users_days: int = 0
    """Days for which distinct users are kept, counted back from the newest record; 0 keeps them for good."""
    entity_record_max_bytes: int = 262_144
    """One entity record in the log: 4 vectors of 1,536 floats as JSON, with room for text."""


class Schema(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A whole, valid schema. Mappings keep the order of declaration."""

    name: str
    version: int = 1
    entities: dict[str, EntityDef]
    signals: dict[str, SignalDef]
    relationships: dict[str, RelationshipDef]
    states: dict[str, StateDef]
    co_engagement: tuple[str, ...] = ()
    """States whose members are indexed by item, to find users who share items."""
    roles: dict[str, tuple[str, ...]] = {}
    """The signals that sort modes count as likes, views and so on, by role (``sort_names.ROLES``)."""
    segments: dict[str, Segment] = {}
    cohorts: dict[str, Cohort] = {}
    profile_versions: tuple[Profile, ...] = ()
    limits: Limits = Limits()

    @cached_property
    def signal_list(self) -> tuple[SignalDef, ...]:
        """Signals in the order of declaration: the index is the dense one that columns use."""
        return tuple(self.signals.values())

    @cached_property
    def signal_index(self) -> dict[str, int]:
        """Index in ``signal_list`` by name."""
        return {signal.name: index for index, signal in enumerate(self.signal_list)}

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The newest version of each profile by name."""
        newest: dict[str, Profile] = {}
        for profile in self.profile_versions:
            known = newest.get(profile.name)
            if known is None or profile.version > known.version:
                newest[profile.name] = profile
        return newest

    @cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """The users' dimensions by name."""
        return self.entities["user"].dimensions

    def profile(self, reference: str) -> Profile:
        """The profile ``name`` (its newest version) or ``name@version``.

        Raises:
            KeyError: there is no such profile or version.
        """
        name, at, version = reference.partition("@")
        if not at:
            return self.profiles[name]
        for profile in self.profile_versions:
            if profile.name == name and str(profile.version) == version:
                return profile
        raise KeyError(reference)

    def profile_string(self, attributes: Mapping[str, Any]) -> str:
        """The cohort profile of a user with these attributes: the dimensions that they give a value."""
        values = {name: dimension.value_of(attributes) for name, dimension in self.dimensions.items()}
        return encode_profile({name: value for name, value in values.items() if value is not None})
