"""Item, user and creator records: whole, patched, in batches.

A PATCH is a JSON merge patch (RFC 7396) on the record that the tables hold. Two patches through one daemon
are applied one after the other: the second waits until the first is visible. Patches of one record through
two daemons at the same moment, or beside another producer, can still overwrite each other, because the log
has no conditional write; who needs that writes whole records.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from queryd.http.bodies import decode_json, read_body
from queryd.http.error_mapping import of_record_error
from queryd.http.handlers.replies import json_reply, raw_json_reply, require_user, table_parameters_of
from queryd.http.middleware import CALLER
from queryd.http.problems import ProblemError, bad_fields, invalid, not_found
from queryd.http.services import services
from queryd.http.shapes import BatchWritten, FieldProblem, RejectedRecord, UserDeleted, Written
from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.entities import decode_entity, parse_entity_key
from schemas.records.forget_record import erasure_name
from streams.positions import Position, Positions

Record = dict[str, Any]
KINDS = {"items": "item", "users": "user", "creators": "creator"}

REMEMBERED_MAX = 10_000
"""Entities whose last write is remembered for the next patch. A forgotten one was written so many writes ago
that it is visible."""
STRIPES = 256
VISIBLE_TIMEOUT_S = 5.0
"""How long a patch waits for the write before it to become visible; usually some tens of milliseconds."""


class EntityWrites:
    """Serialises the writes of one daemon to an entity, and knows which one the next patch must see."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], Position] = OrderedDict()
        self._locks = [asyncio.Lock() for _ in range(STRIPES)]

    @asynccontextmanager
    async def alone(self, kind: str, ids: Sequence[str]) -> AsyncIterator[None]:
        """Nobody else writes these entities through this daemon meanwhile.

        A lock is shared by several entities, so that a bounded number serves all; they are taken in one
        order, so that nobody waits for somebody who waits.
        """
        stripes = sorted({hash((kind, id)) % STRIPES for id in ids})
        async with AsyncExitStack() as held:
            for stripe in stripes:
                await held.enter_async_context(self._locks[stripe])
            yield

    def remember(self, kind: str, id: str, position: Position) -> None:
        """Notes where the entity was last written."""
        self._last[(kind, id)] = position
        self._last.move_to_end((kind, id))
        if len(self._last) > REMEMBERED_MAX:
            self._last.popitem(last=False)

    def last(self, kind: str, id: str) -> Position | None:
        """Where this daemon last wrote the entity."""
        return self._last.get((kind, id))


ENTITY_WRITES: web.AppKey[EntityWrites] = web.AppKey("entity_writes", EntityWrites)


class EntityRoutes:
    """The handlers of one kind of entity."""

    def __init__(self, plural: str) -> None:
        self.kind = KINDS[plural]

    async def put(self, request: web.Request) -> web.Response:
        """Replaces the record."""
        id = self._own_id(request, "write it")
        body = await read_body(request)
        _check(self.kind, id, body, services(request).reader.schema)
        record = _object(decode_json(body))
        async with request.app[ENTITY_WRITES].alone(self.kind, [id]):
            return json_reply(await self._write(request, id, record))

    async def patch(self, request: web.Request) -> web.Response:
        """Merges the body into the record (RFC 7396): null removes, an object merges, the rest replaces."""
        id = self._own_id(request, "change it")
        patch = _object(decode_json(await read_body(request)))
        async with request.app[ENTITY_WRITES].alone(self.kind, [id]):
            current = await self._visible_record(request, id)
            merged = merge_patch(current, patch)
            _check(self.kind, id, msgspec.json.encode(merged), services(request).reader.schema)
            return json_reply(await self._write(request, id, merged))

    async def get(self, request: web.Request) -> web.Response:
        """The record as the tables hold it; of a creator also the catalog and the followers."""
        id = self._own_id(request, "read it")
        await table_parameters_of(request, ())
        raw = await services(request).reader.record(self.kind, id)
        if raw is None:
            raise not_found(self.kind, id)
        if self.kind != "creator":
            return raw_json_reply(raw)
        record = _object(msgspec.json.decode(raw))
        return json_reply(record | await services(request).reader.creator_facts(id))

    async def delete(self, request: web.Request) -> web.Response:
        """Deletes the entity; deleting what does not exist is no error, the log takes it all the same."""
        id = self._own_id(request, "delete it")
        offered = services(request)
        _check(self.kind, id, None, offered.reader.schema)
        async with request.app[ENTITY_WRITES].alone(self.kind, [id]):
            position = await offered.writer.put_entity(self.kind, id, None)
            request.app[ENTITY_WRITES].remember(self.kind, id, position)
        if self.kind != "user":
            return json_reply(Written(id=id, position=position.encode()))
        erasure = erasure_name((position.partition, position.offset))
        return json_reply(UserDeleted(id=id, position=position.encode(), erasure=erasure))

    async def batch(self, request: web.Request) -> web.Response:
        """Writes an array of records, each with its `id`: the good ones, whatever the others are."""
        offered = services(request)
        records = decode_json(await read_body(request), list[Any])
        _check_batch_size(records, offered.reader.schema)
        good, rejected = _split(self.kind, records, offered.reader.schema, request)
        if not good:
            raise _nothing_written(rejected)
        written = []
        async with request.app[ENTITY_WRITES].alone(self.kind, [id for id, _ in good.values()]):
            positions = await asyncio.gather(
                *(offered.writer.put_entity(self.kind, id, r) for id, r in good.values())
            )
            for (id, _), position in zip(good.values(), positions, strict=True):
                request.app[ENTITY_WRITES].remember(self.kind, id, position)
                written.append(Written(id=id, position=position.encode()))
        return json_reply(BatchWritten(Positions.of(positions).encode(), written, rejected))

    def _own_id(self, request: web.Request, what: str) -> str:
        id = request.match_info["id"]
        if self.kind == "user":
            require_user(request, id, what)
        elif request.method != "GET":
            require_user(request, None, what)
        return id

    async def _write(self, request: web.Request, id: str, record: Record) -> Written:
        position = await services(request).writer.put_entity(self.kind, id, {"id": id, **record})
        request.app[ENTITY_WRITES].remember(self.kind, id, position)
        return Written(id=id, position=position.encode())

    async def _visible_record(self, request: web.Request, id: str) -> Record:
        offered = services(request)
        last = request.app[ENTITY_WRITES].last(self.kind, id)
        if last is not None and not await offered.reader.wait_applied(
            Positions.of([last]), VISIBLE_TIMEOUT_S
        ):
            raise ProblemError(
                503,
                "not_visible_yet",
                f"{self.kind} {id!r}: its last write is not visible after {VISIBLE_TIMEOUT_S:g} s; try again",
                headers={"Retry-After": "1"},
            )
        raw = await offered.reader.record(self.kind, id)
        if raw is None:
            raise not_found(self.kind, id)
        return _object(msgspec.json.decode(raw))


def merge_patch(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Record:
    """RFC 7396's MergePatch of two objects."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge_patch(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _object(value: Any) -> Record:
    if not isinstance(value, dict):
        raise bad_fields("wrong_type", [FieldProblem("$", "expected a JSON object")], status=422)
    return value


def _check(kind: str, id: str, value: bytes | None, schema: Schema) -> None:
    """Raises ProblemError for what the log's readers would refuse, so that it never gets into the log."""
    try:
        _check_id(id, schema)
        decode_entity(kind, id.encode(), value, schema, time.time_ns() // 1_000_000)
    except RecordError as error:
        raise of_record_error(error) from None


def _check_id(id: str, schema: Schema) -> None:
    if parse_entity_key(id.encode(), schema.limits.max_id_bytes) != id:
        raise RecordError("wrong_type", "id", "it reads as a connector's JSON key, which states another id")


def _check_batch_size(records: list[Any], schema: Schema) -> None:
    limit = schema.limits.max_array_events
    if len(records) > limit:
        raise ProblemError(
            422,
            "too_many_records",
            f"{len(records):,} records are more than max_array_events = {limit:,}; send them in parts",
            limit="max_array_events",
        )


def _split(
    kind: str, records: list[Any], schema: Schema, request: web.Request
) -> tuple[dict[int, tuple[str, Record]], list[RejectedRecord]]:
    good: dict[int, tuple[str, Record]] = {}
    rejected: list[RejectedRecord] = []
    for index, record in enumerate(records):
        try:
            good[index] = _checked_entry(kind, record, schema)
        except ProblemError as problem:
            field = problem.errors[0] if problem.errors else FieldProblem("$", problem.detail)
            rejected.append(RejectedRecord(index, problem.code, field.path, field.message))
            continue
        request[CALLER].require_user(good[index][0] if kind == "user" else None, f"write {kind}s")
    return good, rejected


def _checked_entry(kind: str, record: Any, schema: Schema) -> tuple[str, Record]:
    fields = _object(record)
    id = fields.get("id")
    if not isinstance(id, str):
        raise invalid("missing_field", "$.id", "every record of a batch needs its id, a string")
    _check(kind, id, msgspec.json.encode(fields), schema)
    return id, fields


def _nothing_written(rejected: list[RejectedRecord]) -> ProblemError:
    if not rejected:
        return ProblemError(422, "no_records", "the array is empty; send at least one record")
    fields = [
        FieldProblem(path=f"$[{r.index}]{r.path.removeprefix('$')}", message=r.message, code=r.code)
        for r in rejected
    ]
    return bad_fields(rejected[0].code, fields, status=422)
