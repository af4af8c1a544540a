"""How commands find a running Tidal: the option for it, then the folder of a `tidal up`, then the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidal.cli.endpoints import Endpoints, read_endpoints
from tidal.cli.failure import CommandError
from tidal.client import DEFAULT_URL, Client

HttpOption = Annotated[
    str | None, typer.Option("--http", metavar="URL", help="Where queryd listens, for example http://127.0.0.1:8080.")
]
BrokersOption = Annotated[
    str | None, typer.Option("--brokers", metavar="HOST:PORT,…", help="The log: a Kafka cluster or the embedded log.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="The folder of a running `tidal up`, which knows where.")
]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar="TIDAL_KEY", help="The key, where queryd asks for one.", show_envvar=True)
]
