"""POST /v1/signals: events in, the log's acknowledgement out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from aiohttp import web

from queryd.http.access import Caller
from queryd.http.bodies import read_body
from queryd.http.error_mapping import of_record_error
from queryd.http.handlers.replies import json_reply
from queryd.http.middleware import CALLER
from queryd.http.problems import ProblemError
from queryd.http.services import services
from queryd.http.shapes import FieldProblem, RejectedEvent, SignalsAccepted
from schemas.errors import RecordError
from schemas.model import Schema
from schemas.nearest import nearest
from schemas.records.columns import EventColumns
from schemas.records.decode import Reject, decode_records
from streams.positions import Positions

HINTS_MAX = 20
"""Unknown kinds of one body for which the nearest declared one is looked for."""


class _Kind(msgspec.Struct):
    kind: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that is not published: its index in the array, and why."""

    index: int
    code: str
    path: str
    message: str


async def publish_signals(request: web.Request) -> web.Response:
    """Publishes one event or an array; the good ones of an array are accepted whatever the others are."""
    offered = services(request)
    body = await read_body(request)
    columns, refused = decode_events(body, offered.reader.schema, now_ms=time.time_ns() // 1_000_000)
    columns, refused = only_own_events(columns, refused, request[CALLER])
    offered.metrics.signals.labels("rejected").inc(len(refused))
    if len(columns) == 0:
        raise nothing_accepted(refused)
    positions = await offered.writer.publish_columns(columns)
    offered.metrics.signals.labels("accepted").inc(len(columns))
    reply = SignalsAccepted(
        position=Positions.of(positions).encode(),
        accepted=len(columns),
        duplicates=None,
        rejected=[
            RejectedEvent(r.index, r.code, f"{r.path}: {r.message}" if r.path else r.message) for r in refused
        ],
    )
    return json_reply(reply, status=202)


def decode_events(body: bytes, schema: Schema, now_ms: int) -> tuple[EventColumns, list[Refused]]:
    """The events of a body, and those that are refused. `now_ms` becomes the time of events without one.

    Raises ProblemError: 400 when the body is not JSON, 422 when it is of another shape or holds more events
    than `max_array_events`.
    """
    decoded = decode_records([body], np.array([now_ms], dtype=np.int64), schema)
    hints: dict[str, str] = {}
    whole = [_refused(reject, schema, hints) for reject in decoded.rejects if reject.event is None]
    if whole:
        raise of_record_error(RecordError(whole[0].code, whole[0].path, whole[0].message))
    total = len(decoded.columns) + len(decoded.rejects)
    limit = schema.limits.max_array_events
    if total > limit:
        raise ProblemError(
            422,
            "too_many_events",
            f"{total:,} events are more than max_array_events = {limit:,}; send them in parts",
            limit="max_array_events",
        )
    return decoded.columns, [_refused(reject, schema, hints) for reject in decoded.rejects]


def _refused(reject: Reject, schema: Schema, hints: dict[str, str]) -> Refused:
    error = reject.error
    hint = _hint(reject.raw, schema, hints) if error.code == "unknown_kind" else ""
    return Refused(index=reject.event or 0, code=error.code, path=error.path, message=error.message + hint)


def _hint(raw: bytes, schema: Schema, hints: dict[str, str]) -> str:
    """The declared kind that the refused one resembles; `hints` are those found before."""
    with contextlib.suppress(msgspec.DecodeError):  # the compact form
        kind = msgspec.json.decode(raw, type=_Kind).kind
        return _nearest(kind, schema, hints)
    return ""


def _nearest(kind: str, schema: Schema, hints: dict[str, str]) -> str:
    if kind not in hints and len(hints) < HINTS_MAX:
        near = nearest(kind, schema.signals)
        hints[kind] = f"; did you mean {near!r}?" if near else ""
    return hints.get(kind, "")


def only_own_events(
    columns: EventColumns, refused: list[Refused], caller: Caller
) -> tuple[EventColumns, list[Refused]]:
    """For a key that is limited to one user: refuses the events of everybody else."""
    if caller.user is None or len(columns) == 0:
        return columns, refused
    own = np.array([name == caller.user for name in columns.users], dtype=bool)[columns.user]
    if own.all():
        return columns, refused
    indices = accepted_indices(len(columns), refused)
    foreign = [
        Refused(indices[row], "other_user", "user", f"key {caller.name!r} is limited to user {caller.user!r}")
        for row in np.flatnonzero(~own).tolist()
    ]
    kept = columns.take(np.flatnonzero(own).astype(np.int64))
    return kept, sorted([*refused, *foreign], key=lambda event: event.index)


def accepted_indices(accepted: int, refused: Sequence[Refused]) -> list[int]:
    """Places in the array of the events that were not refused, in order."""
    taken = {event.index for event in refused}
    return [index for index in range(accepted + len(taken)) if index not in taken]


def nothing_accepted(refused: Sequence[Refused]) -> ProblemError:
    """The 422 of a body without one good event; it names every field that was refused."""
    if not refused:
        return ProblemError(
            422,
            "no_events",
            "the array is empty; send at least one event",
            errors=[FieldProblem("$", "no events")],
        )
    fields = [
        FieldProblem(f"$[{r.index}].{r.path}" if r.path else f"$[{r.index}]", r.message, code=r.code)
        for r in refused
    ]
    status = 403 if all(r.code == "other_user" for r in refused) else 422
    return ProblemError(
        status,
        refused[0].code,
        f"none of the {len(refused)} events is good; the first: {fields[0].message}",
        errors=fields,
    )
