"""Cohorts: which are declared, how large one is."""

from __future__ import annotations

from aiohttp import web

from queryd.http.handlers.replies import json_reply, parameters_of
from queryd.http.route import Parameter
from queryd.http.services import services

SIZE_PARAMETERS = (Parameter("cohort", "a declared cohort, or a predicate over dimensions", required=True),)


async def list_cohorts(request: web.Request) -> web.Response:
    """Declared cohorts, segments and dimensions."""
    return json_reply(await services(request).reader.cohorts())


async def get_cohort_size(request: web.Request) -> web.Response:
    """Distinct users in a cohort."""
    given = parameters_of(request, SIZE_PARAMETERS)
    return json_reply(await services(request).reader.cohort_size(given["cohort"]))
