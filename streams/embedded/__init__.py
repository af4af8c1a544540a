"""A durable single-node log that speaks the Kafka protocol, for a laptop, a test or one small machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streams.embedded.settings import LogSettings

if TYPE_CHECKING:
    from streams.embedded.embedded_log import EmbeddedLog, run
    from streams.embedded.errors import EmbeddedLogError, ListenError, LogFolderError, UsersError
    from streams.embedded.security import Security

__all__ = [
    "EmbeddedLog",
    "EmbeddedLogError",
    "ListenError",
    "LogFolderError",
    "LogSettings",
    "Security",
    "UsersError",
    "run",
]


def __getattr__(name: str) -> Any:
    # The compaction process imports this package too and needs none of the server.
    if name in ("EmbeddedLog", "run"):
        from streams.embedded import embedded_log

        return getattr(embedded_log, name)
    if name == "Security":
        from streams.embedded.security import Security

        return Security
    if name in ("EmbeddedLogError", "ListenError", "LogFolderError", "UsersError"):
        from streams.embedded import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
