"""Signal ledgers of items and creators."""

from __future__ import annotations

from aiohttp import web

from queryd.http.handlers.replies import json_reply, table_parameters_of
from queryd.http.problems import not_found
from queryd.http.route import Parameter
from queryd.http.services import services

TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999."""
LEDGER_PARAMETERS = (
    Parameter("signal", "only this signal; without it, a ledger for each signal"),
    Parameter("window", "only this window", choices=("1h", "24h", "7d", "30d", "all_time")),
    Parameter("at", "the time to read at, ms since the epoch; now by default", int, low=0, high=TIME_MS_MAX),
    Parameter("cohort", "a declared cohort or a predicate: only events of users who were in it then"),
)


async def get_item_signals(request: web.Request) -> web.Response:
    """What signals have amounted to for an item."""
    return await _ledger(request, "item")


async def get_creator_signals(request: web.Request) -> web.Response:
    """What signals have amounted to for a creator's items."""
    return await _ledger(request, "creator")


async def _ledger(request: web.Request, kind: str) -> web.Response:
    given = await table_parameters_of(request, LEDGER_PARAMETERS)
    reader = services(request).reader
    signal = given.get("signal")
    if signal is not None and signal not in reader.schema.signals:
        raise not_found("signal", signal, reader.schema.signals)
    id = request.match_info["id"]
    found = await reader.ledger(kind, id, **given)
    if found is None:
        raise not_found(kind, id)
    return json_reply(found)
