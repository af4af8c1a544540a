"""Copies a log into another one, every record at the offset that it had."""

from __future__ import annotations

from streams.mirror.mirror import Log, MirrorReport, mirror

__all__ = ["Log", "MirrorReport", "mirror"]
