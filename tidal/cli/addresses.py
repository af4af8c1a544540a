"""HOST:PORT as users write it."""

from __future__ import annotations

from typing import NamedTuple

from tidal.cli.failure import UsageError

PORT_MAX = 65535


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, option: str) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080`, `:8080` (this machine). Raises UsageError that names the option."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > PORT_MAX:
        raise UsageError(
            f"{text!r} is not an address", where=option, do="write HOST:PORT, for example 127.0.0.1:8080"
        )
    return Address(host.strip("[]") or "127.0.0.1", int(port))
