"""MovieLens 100k into a running `tidal up`: cohorts equal a plain recount of the files, pages differ."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.real_data import data_set
from tidal.client import Client
from tidal.site_process import SiteProcess

TIMEOUT_S = 100
COHORT = "gender:F, age:25-34"


class Rating(NamedTuple):
    user: str
    item: str
    stars: float


class Person(NamedTuple):
    age: int
    gender: str


class Imported(NamedTuple):
    """The running site, and how to import into it once more."""

    client: Client
    data: Path
    folder: Path


def _import(folder: Path, data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidal", "import", "movielens", str(folder), "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    folder = data_set("ml-100k")
    data = tmp_path_factory.mktemp("movielens")
    with SiteProcess(data) as endpoints:
        finished = _import(folder, data)
        assert finished.returncode == 0, finished.stderr
        assert "0 rows refused" in finished.stderr
        with Client(endpoints.http) as client:
            yield Imported(client, data, folder)


def _ratings(folder: Path) -> list[Rating]:
    lines = gzip.decompress((folder / "ml-100k.inter.gz").read_bytes()).decode().splitlines()[1:]
    return [Rating(user, item, float(stars)) for user, item, stars, _ in map(str.split, lines)]


def _people(folder: Path) -> dict[str, Person]:
    lines = (folder / "ml-100k.user").read_text().splitlines()[1:]
    return {fields[0]: Person(int(fields[1]), fields[2]) for fields in map(str.split, lines)}


def test_top_films_of_a_cohort_equal_a_plain_recount(imported: Imported) -> None:
    people = _people(imported.folder)
    counts: Counter[str] = Counter()
    for rating in _ratings(imported.folder):
        person = people[rating.user]
        if person.gender == "F" and 25 <= person.age <= 34:
            counts[rating.item] += 1
    expected = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:100]
    reply = imported.client.query(
        f"RETRIEVE items USING PROFILE trending COHORT {COHORT} WINDOW all_time LIMIT 100"
    )
    assert [(result.id, result.score) for result in reply.results] == expected
    assert reply.estimator == "exact"


def test_every_rating_is_counted_once(imported: Imported) -> None:
    ratings = _ratings(imported.folder)
    for item in ("50", "1", "1682"):
        of_item = [rating for rating in ratings if rating.item == item]
        views = imported.client.ledger("item", item, "view")
        likes = imported.client.ledger("item", item, "like")
        assert views.all_time.count == len(of_item)
        assert likes.all_time.count == sum(rating.stars >= 4 for rating in of_item)


def test_what_was_rated_is_seen(imported: Imported) -> None:
    rated = {rating.item for rating in _ratings(imported.folder) if rating.user == "1"}
    assert imported.client.user_state("1").states["seen"].count == len(rated)


def test_opposite_tastes_get_different_pages(imported: Imported) -> None:
    """A user who likes horror and skips romance, and one the other way round."""
    first, second = _opposite_users(imported.folder)
    pages = []
    for user in (first, second):
        reply = imported.client.query(f"RETRIEVE items FOR USER @{user} USING PROFILE for_you LIMIT 20")
        assert len(reply.results) == 20
        pages.append([result.id for result in reply.results])
    assert len(set(pages[0]) & set(pages[1])) < 5, (first, second, pages)


def _opposite_users(folder: Path) -> tuple[str, str]:
    """The two users whose sum of stars over 3 for horror minus romance is the highest and the lowest."""
    genres = {}
    for line in (folder / "ml-100k.item").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split("\t")
        genres[fields[0]] = set(fields[3].split())
    leaning: dict[str, float] = defaultdict(float)
    for rating in _ratings(folder):
        direction = ("Horror" in genres[rating.item]) - ("Romance" in genres[rating.item])
        leaning[rating.user] += direction * (rating.stars - 3)
    return max(leaning, key=leaning.__getitem__), min(leaning, key=leaning.__getitem__)


def test_a_second_import_is_refused(imported: Imported) -> None:
    finished = _import(imported.folder, imported.data)
    assert finished.returncode == 1
    assert "--again" in finished.stderr
