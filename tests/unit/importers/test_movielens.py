"""MovieLens in each of its layouts becomes the same records and signals."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from schemas.loading import load_schema
from schemas.model import EmbeddingSlot
from tests.real_data import data_set
from tidal.importers.movielens import events_of, read_items, read_ratings, read_users
from tidal.importers.movielens_files import MovieLensFiles, find_files
from tidal.importers.movielens_import import SCHEMA_FILE, warnings_about
from tidal.importers.rows import ImporterError, Refusals

from .conftest import events_in

SLOT = EmbeddingSlot(name="content", dim=32)
ALL_SIGNALS = frozenset({"view", "rate", "like", "skip"})

LAYOUTS: dict[str, dict[str, str]] = {
    "atomic": {
        "ml.inter": (
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t1\t5\t200\n8\t1\t2\t100\n"
        ),
        "ml.item": (
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "1\tToy Story\t1995\tAnimation Comedy\n"
        ),
        "ml.user": (
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
            "7\t24\tM\ttechnician\t85711\n8\t53\tF\tother\t94043\n"
        ),
    },
    "100k": {
        "u.data": "7\t1\t5\t200\n8\t1\t2\t100\n",
        "u.item": "1|Toy Story (1995)|01-Jan-1995||http://example.org/(1995)|0|0|0|1|0|1" + "|0" * 13 + "\n",
        "u.user": "7|24|M|technician|85711\n8|53|F|other|94043\n",
    },
    "1m": {
        "ratings.dat": "7::1::5::200\n8::1::2::100\n",
        "movies.dat": "1::Toy Story (1995)::Animation|Comedy\n",
        "users.dat": "7::M::24::technician::85711\n8::F::53::other::94043\n",
    },
    "latest": {
        "ratings.csv": "userId,movieId,rating,timestamp\n7,1,5.0,200\n8,1,2.0,100\n",
        "movies.csv": "movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n",
    },
}


def _write(folder: Path, layout: str, *, compressed: bool = False) -> MovieLensFiles:
    for name, text in LAYOUTS[layout].items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text, encoding="utf-8")
    return find_files(folder)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(tmp_path: Path, layout: str, compressed: bool) -> None:
    files = _write(tmp_path, layout, compressed=compressed)
    refusals = Refusals()
    items = [entry.record for entry in read_items(files, None, refusals)]
    assert [(item["id"], item["title"], item["tags"], item["release_year"]) for item in items] == [
        ("1", "Toy Story", ["Animation", "Comedy"], 1995)
    ]
    ratings = read_ratings(files, refusals)
    assert events_in(events_of(ratings, 0, 2, ALL_SIGNALS)) == [
        ("view", "1", "8", 1.0, 100_000),
        ("rate", "1", "8", 2.0, 100_000),
        ("skip", "1", "8", 1.0, 100_000),
        ("view", "1", "7", 1.0, 200_000),
        ("rate", "1", "7", 5.0, 200_000),
        ("like", "1", "7", 1.0, 200_000),
    ]
    assert refusals.count == 0


@pytest.mark.parametrize("layout", ["atomic", "100k", "1m"])
def test_users_have_their_dimensions(tmp_path: Path, layout: str) -> None:
    users = [entry.record for entry in read_users(_write(tmp_path, layout), Refusals())]
    assert users == [
        {"id": "7", "age": 24, "gender": "M", "occupation": "technician", "zip_code": "85711"},
        {"id": "8", "age": 53, "gender": "F", "occupation": "other", "zip_code": "94043"},
    ]


def test_signals_that_the_schema_lacks_are_left_out(tmp_path: Path) -> None:
    ratings = read_ratings(_write(tmp_path, "100k"), Refusals())
    columns = events_of(ratings, 0, 2, frozenset({"view", "like"}))
    assert Counter(kind for kind, *_ in events_in(columns)) == {"view": 2, "like": 1}
    assert set(columns.kinds) == {"view", "like"}, "a producer refuses a kind that its schema lacks"


def test_a_range_of_ratings_gives_only_its_events(tmp_path: Path) -> None:
    ratings = read_ratings(_write(tmp_path, "100k"), Refusals())
    whole = events_in(events_of(ratings, 0, 2, ALL_SIGNALS))
    halves = [
        *events_in(events_of(ratings, 0, 1, ALL_SIGNALS)),
        *events_in(events_of(ratings, 1, 2, ALL_SIGNALS)),
    ]
    assert halves == whole


def test_bad_rows_are_refused_with_their_line(tmp_path: Path) -> None:
    _write(tmp_path, "100k")
    (tmp_path / "u.data").write_text(
        "7\t1\t5\t200\n7\t1\tnine\t200\n7\t1\t9\t200\n7\t1\n\t1\t3\t200\n7\t1\t3\tnan\n8\t1\t2\t100\n"
    )
    refusals = Refusals()
    ratings = read_ratings(find_files(tmp_path), refusals)
    assert len(ratings) == 2
    assert [refusal.line for refusal in refusals.listed] == [2, 3, 4, 5, 6]
    assert refusals.lines()[0] == "u.data:2: rating 'nine' is not a number from 0.5 to 5.0"


def test_shifting_moves_the_newest_and_keeps_distances(tmp_path: Path) -> None:
    ratings = read_ratings(_write(tmp_path, "100k"), Refusals())
    shifted = ratings.shifted_to(1_000_000_000)
    assert shifted.ts_ms.tolist() == [999_900_000, 1_000_000_000]


def test_old_titles_in_latin_1_are_read(tmp_path: Path) -> None:
    _write(tmp_path, "1m")
    (tmp_path / "movies.dat").write_bytes("1::Misérables, Les (1995)::Drama\n".encode("latin-1"))
    (item,) = read_items(find_files(tmp_path), None, Refusals())
    assert item.record["title"] == "Misérables, Les"


def test_vectors_are_near_within_a_genre_and_the_same_every_time(tmp_path: Path) -> None:
    _write(tmp_path, "1m")
    (tmp_path / "movies.dat").write_text("1::A (1990)::Horror\n2::B (1991)::Horror\n3::C (1992)::Comedy\n")
    files = find_files(tmp_path)

    def vectors() -> list[list[float]]:
        return [entry.record["embeddings"]["content"] for entry in read_items(files, SLOT, Refusals())]

    assert vectors() == vectors()
    horror, other_horror, comedy = np.asarray(vectors())
    assert np.linalg.norm(horror) == pytest.approx(1.0, abs=1e-3)
    assert horror @ other_horror > 0.7
    assert horror @ comedy < horror @ other_horror - 0.3


def test_a_folder_without_the_data_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ImporterError, match=r"u\.data"):
        find_files(tmp_path)
    with pytest.raises(ImporterError, match="not a folder"):
        find_files(tmp_path / "absent")


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "atomic")
    (tmp_path / "other.inter").write_text(LAYOUTS["atomic"]["ml.inter"])
    with pytest.raises(ImporterError, match="more than one"):
        find_files(tmp_path)


def test_the_shipped_schema_lacks_nothing() -> None:
    assert warnings_about(load_schema(SCHEMA_FILE)) == []


def test_what_a_schema_lacks_is_said() -> None:
    schema = load_schema({"name": "bare", "entities": {"user": {"fields": {}, "dimensions": {}}}})
    said = "\n".join(warnings_about(schema))
    for name in ("gender", "occupation"):
        assert repr(name) in said


def test_the_real_data_set_is_read_whole() -> None:
    files = find_files(data_set("ml-100k"))
    refusals = Refusals()
    assert len(list(read_users(files, refusals))) == 943
    assert len(list(read_items(files, SLOT, refusals))) == 1_682
    ratings = read_ratings(files, refusals)
    assert (len(ratings), refusals.count) == (100_000, 0)
    kinds = Counter(kind for kind, *_ in events_in(events_of(ratings, 0, 100_000, ALL_SIGNALS)))
    assert kinds["view"] == kinds["rate"] == 100_000
    assert kinds["like"] == int((ratings.stars >= 4).sum())
