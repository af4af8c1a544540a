"""What each stage did: rows and microseconds, and what had to be left out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class StageReport:
    """One stage of one query."""

    stage: str
    name: str
    rows_in: int = 0
    rows_out: int = 0
    took_us: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For EXPLAIN ANALYZE."""
        shown = {
            "stage": self.stage,
            "name": self.name,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "took_us": self.took_us,
        }
        return shown | self.notes


@dataclass(slots=True)
class Report:
    """Stages in the order in which they ran, warnings, and what was cut."""

    deadline_s: float
    stages: list[StageReport] = field(default_factory=list)
    degraded: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, stage: str, name: str, rows_in: int = 0) -> Iterator[StageReport]:
        """Time one stage."""
        report = StageReport(stage, name, rows_in)
        began = time.perf_counter()
        try:
            yield report
        finally:
            report.took_us = round((time.perf_counter() - began) * 1e6)
            self.stages.append(report)

    def out_of_time(self) -> bool:
        """Whether the deadline has passed: stages that the reply can do without are skipped then."""
        return time.monotonic() > self.deadline_s

    def degrade(self, stage: str, why: str) -> None:
        """Name a stage that was cut, once."""
        entry = {"stage": stage, "why": why}
        if entry not in self.degraded:
            self.degraded.append(entry)

    def warn(self, text: str) -> None:
        """Say something that the asker should know, once."""
        if text not in self.warnings:
            self.warnings.append(text)
