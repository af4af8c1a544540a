"""A route as data: path, handler, who may call it, and what OpenAPI says about it.

The application, the access rules, the metrics labels and `/openapi.json` are all made from the same `Route`
values, so they cannot disagree.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp import web

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Method: TypeAlias = Literal["GET", "PUT", "PATCH", "POST", "DELETE"]


class Role(enum.IntEnum):
    """What a key may do; each role includes the ones before it. OPEN needs no key."""

    OPEN = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Parameter:
    """A URL parameter. A `many` parameter may be repeated or separated by commas."""

    name: str
    doc: str
    type: type = str
    required: bool = False
    choices: tuple[str, ...] = ()
    many: bool = False
    low: int | None = None
    high: int | None = None


AFTER = Parameter("after", "position token of a write that the answer must reflect; waits for it, else 504")
"""On every read of tables: read your writes."""


@dataclass(frozen=True, slots=True)
class RecordShape:
    """The record of a kind of entity, or with `many` an array of them: as the site's schema declares it."""

    kind: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """A request body: its type for each media type, with an example for each where one helps."""

    types: Mapping[str, Any]
    examples: Mapping[str, Any] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    `status` and `reply` describe the answer when all goes well, `other_replies` further answers that are no
    problem documents, `problems` the statuses of those that are (besides those of access, and 500).
    """

    method: Method
    path: str
    handler: Handler
    operation_id: str
    role: Role
    tag: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    status: int = 200
    reply: Any = None
    reply_media: str = "application/json"
    other_replies: Mapping[int, Any] = field(default_factory=dict)
    problems: tuple[int, ...] = ()
