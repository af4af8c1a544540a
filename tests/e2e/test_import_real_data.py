"""Taobao and Hacker News into a running `tidal up`: every count equals a plain recount of the files."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import NamedTuple

import pytest

from schemas.default import default_schema
from streams.dead_letters import StoredDeadLetter, read_dead_letters
from tests.crash.tables import logical, rows_on_disk
from tests.real_data import data_set
from tidal.client import Client
from tidal.site_process import SiteProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IMPORT_TIMEOUT_S = 150
HOUR_MS = 3_600_000
KINDS = {"pv": "view", "cart": "add_to_list", "fav": "save", "buy": "purchase"}
EARLIEST_S = 315_532_800


class Behaviour(NamedTuple):
    user: str
    item: str
    category: str
    kind: str
    ts_ms: int


class Post(NamedTuple):
    id: str
    author: str
    points: int
    comments: int
    ts_ms: int


class Imported(NamedTuple):
    """The site with both data sets. hours: (item, signal, hour) -> count and sum (micro-units)."""

    client: Client
    brokers: str
    said: str
    hours: dict[tuple[str, str, int], tuple[int, int]]


def behaviours() -> list[Behaviour]:
    """Every line of the file, good or not."""
    text = gzip.decompress((data_set("taobao-userbehavior") / "UserBehavior.csv.gz").read_bytes()).decode()
    rows = (line.split(",") for line in text.splitlines())
    return [
        Behaviour(user, item, category, KINDS[kind], int(seconds) * 1000)
        for user, item, category, kind, seconds in rows
    ]


def posts() -> list[Post]:
    """Every row of the file."""
    path = data_set("hackernews") / "hacker_news.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [
            Post(row["id"], row["author"], int(row["num_points"]), int(row["num_comments"]), _minute_ms(row))
            for row in csv.DictReader(file)
        ]


def _minute_ms(row: dict[str, str]) -> int:
    parsed = datetime.strptime(row["created_at"], "%m/%d/%Y %H:%M").replace(tzinfo=UTC)
    return int(parsed.timestamp() * 1000)


def _hour(ts_ms: int) -> int:
    return ts_ms // HOUR_MS * HOUR_MS


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    folders = {name: data_set(name) for name in ("taobao-userbehavior", "hackernews")}
    data = tmp_path_factory.mktemp("site")
    said = ""
    with SiteProcess(data) as endpoints:
        for source, folder in zip(("taobao", "hackernews"), folders.values(), strict=True):
            command = [sys.executable, "-m", "tidal", "import", source, str(folder), "--data", str(data)]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False
            )
            assert done.returncode == 0, done.stderr
            said += done.stderr
        hours = logical(rows_on_disk(data), default_schema()).hours
        with Client(endpoints.http) as client:
            yield Imported(client, endpoints.brokers, said, hours)


def test_every_behaviour_of_every_item_in_every_hour_equals_a_recount(imported: Imported) -> None:
    expected = Counter(
        (row.item, row.kind, _hour(row.ts_ms)) for row in behaviours() if row.ts_ms >= EARLIEST_S * 1000
    )
    found = {key: count for key, (count, _) in imported.hours.items() if key[1] in KINDS.values()}
    assert found == expected


def test_the_ledger_tells_each_hour_of_2017(imported: Imported) -> None:
    """`at=` the last millisecond of an hour: the counts up to there, for busy items and some others."""
    rows = [row for row in behaviours() if row.ts_ms >= EARLIEST_S * 1000]
    items = [item for item, _ in Counter(row.item for row in rows).most_common(3)]
    hours = sorted({_hour(row.ts_ms) for row in rows})
    of_item = defaultdict(list)
    for row in rows:
        of_item[row.item].append(row)
    for item, hour, kind in product([*items, rows[0].item], hours, KINDS.values()):
        until = [row for row in of_item[item] if row.ts_ms < hour + HOUR_MS and row.kind == kind]
        ledger = imported.client.ledger("item", item, kind, at=hour + HOUR_MS - 1)
        assert ledger.all_time.count == len(until), (item, kind, hour)
        assert ledger.windows["24h"].count == len(until), (item, kind, hour)
        if "1h" in ledger.windows:
            recent = sum(row.ts_ms >= hour for row in until)
            assert ledger.windows["1h"].count == recent, (item, kind, hour)


def test_the_row_with_the_bad_time_is_a_dead_letter_that_says_so(imported: Imported) -> None:
    (number,) = (n for n, row in enumerate(behaviours(), 1) if row.ts_ms < EARLIEST_S * 1000)
    row = behaviours()[number - 1]
    (letter,) = read_dead_letters(imported.brokers)
    assert letter.letter is not None
    assert (letter.letter.topic, letter.code) == ("tidal.signals", "timestamp_out_of_range")
    assert str(row.ts_ms) in letter.letter.reason
    assert letter.key == row.user.encode()
    assert row.item.encode() in letter.value
    assert f"to the dead-letter topic: UserBehavior.csv.gz:{number}:" in imported.said
    assert imported.client.status().rejected == {"timestamp_out_of_range": 1}
    assert isinstance(letter, StoredDeadLetter)


def test_points_and_comments_of_every_post_in_every_hour_equal_a_recount(imported: Imported) -> None:
    expected: dict[tuple[str, str, int], tuple[int, int]] = {}
    for post in posts():
        for kind, number in (("like", post.points), ("comment", post.comments)):
            if number:
                expected[post.id, kind, _hour(post.ts_ms)] = (1, number * 1_000_000)
    found = {key: value for key, value in imported.hours.items() if key[1] in ("like", "comment")}
    assert found == expected


def test_the_ledgers_of_posts_and_authors_have_the_sums(imported: Imported) -> None:
    rows = posts()
    post = max(rows, key=lambda each: each.points)
    before = imported.client.ledger("item", post.id, "like", at=_hour(post.ts_ms) - 1)
    after = imported.client.ledger("item", post.id, "like", at=_hour(post.ts_ms) + HOUR_MS - 1)
    assert (before.all_time.sum, after.all_time.sum) == (0, post.points)
    authors = [author for author, _ in Counter(row.author for row in rows).most_common(5)]
    for author in authors:
        own = [row for row in rows if row.author == author]
        for kind, numbers in (
            ("like", [row.points for row in own]),
            ("comment", [row.comments for row in own]),
        ):
            ledger = imported.client.ledger("creator", author, kind)
            assert ledger.all_time.sum == sum(numbers), (author, kind)
            assert ledger.all_time.count == sum(number > 0 for number in numbers), (author, kind)


def test_a_category_can_be_asked_for(imported: Imported) -> None:
    asked = {row.item for row in behaviours() if row.category == "4756105"}
    reply = imported.client.query(
        "RETRIEVE items USING PROFILE trending WINDOW all_time FILTER category:4756105 LIMIT 50"
    )
    assert len(reply.results) == 50
    assert {result.id for result in reply.results} <= asked
