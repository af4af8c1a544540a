"""Puts the application together: routes, middleware, limits, the OpenAPI document."""

from __future__ import annotations

import msgspec
from aiohttp import web

from queryd.http import middleware
from queryd.http.handlers.entities import ENTITY_WRITES, EntityWrites
from queryd.http.handlers.operations import OPENAPI_DOCUMENT
from queryd.http.openapi import openapi_document
from queryd.http.routes import all_routes
from queryd.http.services import SERVICES, Services
from queryd.version import VERSION


def create_app(services: Services) -> web.Application:
    """The whole HTTP face over these services. The engine and the producer belong to the caller."""
    routes = all_routes()
    index = middleware.RouteIndex(routes)
    app = web.Application(
        client_max_size=services.reader.schema.limits.max_body_bytes,
        middlewares=[middleware.observe(index), middleware.problems(index), middleware.access(index)],
    )
    app[SERVICES] = services
    app[ENTITY_WRITES] = EntityWrites()
    app[OPENAPI_DOCUMENT] = msgspec.json.encode(openapi_document(routes, VERSION, services.reader.schema))
    services.metrics.watch(services.reader)
    for route in routes:
        if route.method == "GET":
            app.router.add_get(route.path, route.handler, allow_head=True)
        else:
            app.router.add_route(route.method, route.path, route.handler)
    return app
