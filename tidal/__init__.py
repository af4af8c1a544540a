"""Tidal's public face: publish signals, ask for ranked pages, declare schemas.

    from tidal import Client, Producer

    with Producer("127.0.0.1:9092") as producer:
        producer.publish("like", "item_I", "user_U").result()
    with Client("http://127.0.0.1:8080") as client:
        page = client.query("RETRIEVE items USING PROFILE trending LIMIT 25")

Names are loaded when they are first used: a program that only queries does not load the log's client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queryd.language.builder import retrieve, search
    from schemas.builder import SchemaBuilder
    from schemas.default import default_schema
    from schemas.errors import RecordError, SchemaError, TidalError
    from schemas.loading import load_schema
    from schemas.model import Schema
    from streams.positions import Position, Positions
    from streams.producer import Producer
    from streams.producer_async import AsyncProducer
    from tidal.client import Client
    from tidal.client_async import AsyncClient
    from tidal.client_errors import (
        AccessDeniedError,
        ClientError,
        InvalidRequestError,
        NotFoundError,
        NotNowError,
        RefusedError,
        ServerUnreachableError,
    )

_HOME = {
    "AccessDeniedError": "tidal.client_errors",
    "AsyncClient": "tidal.client_async",
    "AsyncProducer": "streams.producer_async",
    "Client": "tidal.client",
    "ClientError": "tidal.client_errors",
    "InvalidRequestError": "tidal.client_errors",
    "NotFoundError": "tidal.client_errors",
    "NotNowError": "tidal.client_errors",
    "Position": "streams.positions",
    "Positions": "streams.positions",
    "Producer": "streams.producer",
    "RecordError": "schemas.errors",
    "RefusedError": "tidal.client_errors",
    "Schema": "schemas.model",
    "SchemaBuilder": "schemas.builder",
    "SchemaError": "schemas.errors",
    "ServerUnreachableError": "tidal.client_errors",
    "TidalError": "schemas.errors",
    "default_schema": "schemas.default",
    "load_schema": "schemas.loading",
    "retrieve": "queryd.language.builder",
    "search": "queryd.language.builder",
}

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncProducer",
    "Client",
    "ClientError",
    "InvalidRequestError",
    "NotFoundError",
    "NotNowError",
    "Position",
    "Positions",
    "Producer",
    "RecordError",
    "RefusedError",
    "Schema",
    "SchemaBuilder",
    "SchemaError",
    "ServerUnreachableError",
    "TidalError",
    "default_schema",
    "load_schema",
    "retrieve",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tidal' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
