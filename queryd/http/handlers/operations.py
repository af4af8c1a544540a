"""Liveness, readiness, metrics, status, the OpenAPI document and the two pages for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from queryd.http.handlers.replies import json_reply, raw_json_reply
from queryd.http.pages import docs_page, status_page
from queryd.http.services import readiness, services
from queryd.http.shapes import Liveness, Status
from queryd.version import VERSION

OPENAPI_DOCUMENT: web.AppKey[bytes] = web.AppKey("openapi_document", bytes)

# The pages carry their script and style in themselves and may talk only to this server.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
}


async def livez(request: web.Request) -> web.Response:
    """The process answers."""
    return json_reply(Liveness("alive"))


async def readyz(request: web.Request) -> web.Response:
    """200 when tables are restored and the lag is under its bound, else 503 with reasons and progress."""
    body = readiness(services(request))
    return json_reply(body, status=200 if body.ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text format."""
    text = services(request).metrics.text()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def get_status(request: web.Request) -> web.Response:
    """What `tidal status` prints."""
    offered = services(request)
    engine = dict(offered.reader.status())
    workers = engine.pop("tables", {})
    body = Status(
        version=VERSION,
        ready=readiness(offered).ready,
        log=dict(offered.lag.status()),
        engine=engine,
        workers=workers,
        rejected=rejected_by_reason(workers),
        http=offered.metrics.summary(),
    )
    return json_reply(body)


def rejected_by_reason(workers: Mapping[str, Any]) -> dict[str, int]:
    """Refused records of all partitions of all workers, by reason."""
    counts: Counter[str] = Counter()
    for worker in workers.values():
        for shard in worker.get("shards", {}).values():
            counts.update(shard.get("rejected", {}))
    return dict(counts)


async def openapi(request: web.Request) -> web.Response:
    """The OpenAPI 3.1 document."""
    return raw_json_reply(request.app[OPENAPI_DOCUMENT])


async def docs(request: web.Request) -> web.Response:
    """The OpenAPI document as a page."""
    return web.Response(text=docs_page(), content_type="text/html", headers=PAGE_HEADERS)


async def index(request: web.Request) -> web.Response:
    """A small page that shows how the engine is doing."""
    return web.Response(text=status_page(), content_type="text/html", headers=PAGE_HEADERS)
