"""A durable single-node log that speaks the Kafka protocol, for a laptop, a test or one small machine."""

from __future__ import annotations

from streams.embedded.embedded_log import EmbeddedLog, run
from streams.embedded.errors import EmbeddedLogError, LogFolderError
from streams.embedded.settings import LogSettings

__all__ = ["EmbeddedLog", "EmbeddedLogError", "LogFolderError", "LogSettings", "run"]
