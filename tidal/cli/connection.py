"""How commands find a running Tidal: by option, by the folder of a `tidal up`, by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidal.cli.failure import CommandError
from tidal.cli.settings import effective_settings
from tidal.client import Client
from tidal.endpoints import Endpoints, read_endpoints

HttpOption = Annotated[
    str | None,
    typer.Option("--http", metavar="URL", help="Where queryd listens, for example http://127.0.0.1:8080."),
]
BrokersOption = Annotated[
    str | None,
    typer.Option("--brokers", metavar="HOST:PORT,…", help="The log: a Kafka cluster or the embedded log."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The folder of a running `tidal up`, which knows where."),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar="TIDAL_KEY", help="The key, where queryd asks for one.")
]


def connect(http: str | None, data: Path | None, key: str | None) -> Client:
    """A client of the queryd that the options, or else the settings, name."""
    return Client(queryd_url(http, data), key=key)


def queryd_url(http: str | None, data: Path | None) -> str:
    """The URL of queryd. Raises CommandError when `data` is given and nothing runs there."""
    if http is None:
        settings = effective_settings()
        running = _running(data, Path(settings.site.data_dir))
        http = running.http if running is not None else settings.queryd.http
    return http if "://" in http else f"http://{http}"


def brokers_of(brokers: str | None, data: Path | None) -> str:
    """The log's addresses. Raises CommandError when `data` is given and nothing runs there."""
    if brokers is not None:
        return effective_settings({"site": {"brokers": brokers}}).site.brokers
    settings = effective_settings()
    running = _running(data, Path(settings.site.data_dir))
    return running.brokers if running is not None else settings.site.brokers or settings.log.listen


def _running(data: Path | None, usual: Path) -> Endpoints | None:
    """The `tidal up` on the folder that was named, else the one on the usual folder if there is one."""
    if data is None:
        return read_endpoints(usual)
    endpoints = read_endpoints(data)
    if endpoints is None:
        raise CommandError("nothing is running on this folder", where=str(data), do=f"tidal up --data {data}")
    return endpoints
