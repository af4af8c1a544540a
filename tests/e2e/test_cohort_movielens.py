"""Two hundred random cohorts of real people: each whole page equals a plain recount of the files."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.composites import Composite, random_composites
from tests.e2e.killing import kill_worker_and_queryd
from tests.e2e.test_up import Site
from tests.plain_recount import HOUR_MS, Counted, Recount, whole_answer
from tests.real_data import data_set
from tidal.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IMPORT_S = 200
NOW_MS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
COMPOSITES, PAST_HOURS = 200, 50
WINDOWS = ("24h", "7d", "30d")
SCHEMA = """
name: films
entities:
  user:
    fields: {age: int, gender: keyword, occupation: keyword}
    dimensions:
      gender: {field: gender}
      occupation: {field: occupation}
      age: {field: age, buckets: {young: [0, 24], grown: [25, 44], older: [45, null]}}
"""


class Films(NamedTuple):
    """The running site, what the files hold, and cohorts to ask for."""

    site: Site
    recount: Recount
    composites: list[Composite]


def _profiles(folder: Path) -> dict[str, dict[str, str]]:
    """user_id, age, gender, occupation, zip_code."""
    found = {}
    for line in (folder / "ml-100k.user").read_text().splitlines()[1:]:
        user, age, gender, occupation, *_ = line.split()
        years = "young" if int(age) <= 24 else "grown" if int(age) <= 44 else "older"
        found[user] = {"gender": gender, "occupation": occupation, "age": years}
    return found


def _events(folder: Path, profiles: dict[str, dict[str, str]]) -> list[Counted]:
    lines = gzip.decompress((folder / "ml-100k.inter.gz").read_bytes()).decode().splitlines()[1:]
    rows = (line.split() for line in lines)
    return [
        Counted("view", item, int(float(seconds) * 1000), profiles[user]) for user, item, _, seconds in rows
    ]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    folder = data_set("ml-100k")
    home = tmp_path_factory.mktemp("films")
    (home / "films.yaml").write_text(SCHEMA)
    profiles = _profiles(folder)
    values = {
        name: sorted({profile[name] for profile in profiles.values()})
        for name in ("gender", "occupation", "age")
    }
    site = Site(home / "data", "--schema", "films.yaml")
    try:
        site.ready()
        command = [sys.executable, "-m", "tidal", "import", "movielens", str(folder)]
        finished = subprocess.run(
            [*command, "--data", str(site.data)],
            capture_output=True,
            text=True,
            timeout=IMPORT_S,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        recount = Recount(_events(folder, profiles), "view")
        yield Films(site, recount, random_composites(5, values, COMPOSITES))
    finally:
        site.close()


def _differing(films: Films, client: Client, chosen: list[tuple[Composite, str, int | None]]) -> list[str]:
    """Of cohorts, windows and past times: those whose answer is not the recount."""
    wrong = []
    for composite, window, at_ms in chosen:
        answer, now_ms = whole_answer(client, cohort=composite.text, window=window, as_of=at_ms)
        if answer != films.recount.trending(window, at_ms or now_ms, composite.belongs):
            wrong.append(f"{composite.text} in {window} at {at_ms}")
    return wrong


def test_two_hundred_random_cohorts_equal_a_recount_of_the_files(films: Films) -> None:
    with Client(films.site.ready()["http"]) as client:
        chosen: list[tuple[Composite, str, int | None]] = [
            (each, "all_time", None) for each in films.composites
        ]
        assert _differing(films, client, chosen) == []
    answers = {str(films.recount.trending("all_time", NOW_MS, each.belongs)) for each in films.composites}
    assert len(answers) > COMPOSITES // 3  # they are not all the same few


def test_and_at_fifty_past_hours_also_after_kills(films: Films) -> None:
    """AS OF, in every window, before and after the worker and queryd are killed."""
    draw = random.Random(11)
    first, last = films.recount.times_ms[0], films.recount.times_ms[-1]
    assert datetime.fromtimestamp(last / 1000, UTC).year == 1998
    chosen: list[tuple[Composite, str, int | None]] = [
        (draw.choice(films.composites), draw.choice(WINDOWS), draw.randrange(first, last + 40 * 24 * HOUR_MS))
        for _ in range(PAST_HOURS)
    ]
    with Client(films.site.ready()["http"], timeout_s=60) as client:
        assert _differing(films, client, chosen) == []
    kill_worker_and_queryd(films.site)
    with Client(films.site.ready()["http"], timeout_s=60) as client:
        assert _differing(films, client, [*chosen[:10], (films.composites[0], "all_time", None)]) == []
