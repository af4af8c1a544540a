"""Cohorts: which are declared, how large one is, how two differ."""

from __future__ import annotations

from aiohttp import web

from queryd.compare import MIN_COUNT
from queryd.http.handlers.ledgers import TIME_MS_MAX
from queryd.http.handlers.replies import json_reply, table_parameters_of
from queryd.http.route import Parameter
from queryd.http.services import services

ITEMS_DEFAULT = 20
ITEMS_MAX = 500
SIZE_PARAMETERS = (Parameter("cohort", "a declared cohort, or a predicate over dimensions", required=True),)
COMPARE_PARAMETERS = (
    Parameter(
        "a", "a declared cohort, or a predicate: what it is more interested in comes first", required=True
    ),
    Parameter("b", "the cohort that it is compared with", required=True),
    Parameter("signal", "whose events are compared; without it, those that trends count"),
    Parameter("window", "24h by default", choices=("1h", "24h", "7d", "30d", "all_time")),
    Parameter("at", "the time to read at, ms since the epoch; now by default", int, low=0, high=TIME_MS_MAX),
    Parameter("limit", f"items, {ITEMS_DEFAULT} by default", int, low=1, high=ITEMS_MAX),
    Parameter(
        "min_count",
        f"items with fewer events in both cohorts together are left out; {MIN_COUNT} by default",
        int,
        low=1,
        high=1 << 53,
    ),
)


async def list_cohorts(request: web.Request) -> web.Response:
    """Declared cohorts, segments and dimensions."""
    return json_reply(await services(request).reader.cohorts())


async def get_cohort_size(request: web.Request) -> web.Response:
    """Distinct users in a cohort."""
    given = await table_parameters_of(request, SIZE_PARAMETERS)
    return json_reply(await services(request).reader.cohort_size(given["cohort"]))


async def compare_cohorts(request: web.Request) -> web.Response:
    """Items by lift of one cohort over another."""
    given = await table_parameters_of(request, COMPARE_PARAMETERS)
    return json_reply(await services(request).reader.compare_cohorts(given.pop("a"), given.pop("b"), **given))
