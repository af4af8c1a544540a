"""What an import says that it brought in: rows that were refused are not among it."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from schemas.default import default_schema
from tidal.cli import import_data
from tidal.importers.imported import Imported
from tidal.importers.resume import ResumeFile
from tidal.publishing import Publisher

from .conftest import RecordingLog

FILES = {
    "events": '{"kind":"view","item":"i"}\n{"kind":"nothing","item":"i"}\n[1]\n{"kind":"like","item":"i"}\n',
    "users": '{"id":"u1","age":3}\n{"id":"u2","age":"old"}\n{"id":"u3"}\n',
}
READERS: dict[str, Callable[..., Imported]] = {
    "events": import_data._events,
    "users": partial(import_data._records, "user"),
}


@pytest.mark.parametrize("name", FILES)
def test_refused_rows_are_not_counted_as_imported(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.jsonl"
    path.write_text(FILES[name])
    log, resume = RecordingLog(), ResumeFile(tmp_path, "a")
    publisher = Publisher(log, resume, Console(file=io.StringIO()))
    run = SimpleNamespace(schema=default_schema(), publisher=publisher, resume=resume)
    done = READERS[name](path, cast(Any, run), False)
    assert done.counts == {name: 2}
    assert done.refusals.count == FILES[name].count("\n") - 2
