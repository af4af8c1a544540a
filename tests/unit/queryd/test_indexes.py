"""Text and vector index by themselves, over records in a dict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from queryd.fingerprints import Fingerprints, fingerprint
from queryd.hot.items import ItemWrite
from queryd.hot.ordinals import Ordinals
from queryd.index_follower import IndexFollower
from queryd.text.index import TextIndex
from queryd.vector.index import VectorIndex
from schemas.records.entities import EntityRecord
from tests.engine_site import small_schema

SCHEMA = small_schema()


class Records:
    """What an index reads records from."""

    def __init__(self) -> None:
        self.held: dict[str, EntityRecord] = {}
        self.reads = 0

    def records(self, kind: str, ids: Sequence[str]) -> list[EntityRecord | None]:
        self.reads += len(ids)
        return [self.held.get(id_) for id_ in ids]


def record(id_: str, title: str = "", vector: Sequence[float] | None = None, **fields: Any) -> EntityRecord:
    embeddings = {} if vector is None else {"content": np.array(vector, dtype=np.float32)}
    return EntityRecord("item", id_, fields={"title": title, **fields}, embeddings=embeddings)


async def settle(index: IndexFollower) -> None:
    while not index.current:
        await index.step()


def put(index: IndexFollower, records: Records, *new: EntityRecord) -> None:
    for each in new:
        records.held[each.id] = each
    index.offer([ItemWrite(each.id, each) for each in new])


def drop(index: IndexFollower, records: Records, id_: str) -> None:
    del records.held[id_]
    index.offer([ItemWrite(id_, None)])


def text_index(folder: Path, records: Any, ordinals: Ordinals) -> TextIndex:
    index = TextIndex(folder / "text", SCHEMA.entities["item"], ordinals, records)
    index.open()
    return index


def found(index: TextIndex, ordinals: Ordinals, text: str, **options: Any) -> list[str]:
    return [ordinals.ids[row] for row in index.search(text, 10, **options).ordinals.tolist()]


async def test_text_is_upserted_deleted_restricted_and_ranked(tmp_path: Path) -> None:
    records, ordinals = Records(), Ordinals()
    index = text_index(tmp_path, records, ordinals)
    ordinals.deal(["a", "b", "c", "d"])
    assert index.unavailable is not None
    put(
        index,
        records,
        record("a", "Piano tutorial"),
        record("b", "Cooking", description="with a piano"),
        record("c", "Piano"),
        record("d", "Cats", tags=["piano", "tutorial"]),
    )
    index.scanned(complete=True)
    await settle(index)
    assert index.unavailable is None
    assert found(index, ordinals, "piano")[0] == "c"  # the shortest title
    assert set(found(index, ordinals, "piano tutorial")) == {"a", "b", "c", "d"}
    assert found(index, ordinals, "piano", among=np.array([0, 1], dtype=np.uint32)) == ["a", "b"]
    everything = index.search("piano", 10)
    some = index.search("piano", 10, np.array([2], dtype=np.uint32))
    assert some.scores[0] == pytest.approx(everything.scores[0])  # the filter adds nothing to the score
    put(index, records, record("c", "Guitar"))
    drop(index, records, "a")
    await settle(index)
    assert sorted(found(index, ordinals, "piano")) == ["b", "d"]
    assert found(index, ordinals, "guitar") == ["c"]
    await index.close()


@pytest.mark.parametrize(
    "text", ['"open', "a AND", "(((", "title:", "^", "*", "a:b:c", "[x TO", "\\", "", "é\u0000"]
)
async def test_bad_syntax_never_fails_a_search(tmp_path: Path, text: str) -> None:
    records, ordinals = Records(), Ordinals()
    index = text_index(tmp_path, records, ordinals)
    ordinals.deal(["a"])
    put(index, records, record("a", "open a"))
    index.scanned(complete=True)
    await settle(index)
    index.search(text, 10)
    await index.close()


async def test_an_archived_item_leaves_the_index(tmp_path: Path) -> None:
    records, ordinals = Records(), Ordinals()
    index = text_index(tmp_path, records, ordinals)
    ordinals.deal(["a"])
    put(index, records, record("a", "piano"))
    index.scanned(complete=True)
    await settle(index)
    put(index, records, EntityRecord("item", "a", status="archived", fields={"title": "piano"}))
    await settle(index)
    assert found(index, ordinals, "piano") == []
    await index.close()


async def test_a_damaged_fingerprint_file_rebuilds_the_index(tmp_path: Path) -> None:
    records, ordinals = Records(), Ordinals()
    ordinals.deal(["a", "b"])
    index = text_index(tmp_path, records, ordinals)
    put(index, records, record("a", "piano"), record("b", "piano"))
    index.scanned(complete=True)
    await settle(index)
    await index.close()
    (tmp_path / "text.fingerprints").write_bytes(b"damaged")
    del records.held["b"]
    again = text_index(tmp_path, records, ordinals)
    again.offer([ItemWrite("a", records.held["a"])])
    again.scanned(complete=True)
    await settle(again)
    assert found(again, ordinals, "piano") == ["a"]
    await again.close()


async def test_an_incomplete_scan_takes_nothing_away(tmp_path: Path) -> None:
    records, ordinals = Records(), Ordinals()
    ordinals.deal(["a"])
    index = text_index(tmp_path, records, ordinals)
    put(index, records, record("a", "piano"))
    index.scanned(complete=True)
    await settle(index)
    await index.close()
    again = text_index(tmp_path, records, ordinals)
    again.scanned(complete=False)
    await settle(again)
    assert found(again, ordinals, "piano") == ["a"]
    await again.close()


async def test_what_is_unchanged_is_not_indexed_again(tmp_path: Path) -> None:
    records, ordinals = Records(), Ordinals()
    names = [f"item_{number}" for number in range(300)]
    ordinals.deal(names)
    index = text_index(tmp_path, records, ordinals)
    put(index, records, *(record(name, "piano") for name in names))
    index.scanned(complete=True)
    await settle(index)
    await index.close()
    reads = records.reads
    again = text_index(tmp_path, records, ordinals)
    put(again, records, *(record(name, "piano") for name in names[:-1]), record(names[-1], "guitar"))
    again.scanned(complete=True)
    await settle(again)
    assert records.reads == reads + 1
    assert len(again.search("piano", 1000).ordinals) == 299
    await again.close()


async def test_vectors_are_upserted_deleted_and_kept(tmp_path: Path) -> None:
    records, ordinals = Records(), Ordinals()
    ordinals.deal(["a", "b", "c"])
    slots = list(SCHEMA.entities["item"].embeddings.values())

    def opened() -> VectorIndex:
        index = VectorIndex(tmp_path / "vectors", slots, ordinals, records)  # type: ignore[arg-type]
        index.open()
        return index

    index = opened()
    put(
        index,
        records,
        record("a", vector=[1, 0, 0, 0]),
        record("b", vector=[0, 1, 0, 0]),
        record("c"),
    )
    index.scanned(complete=True)
    await settle(index)
    query = np.array([1.0, 0.1, 0, 0], dtype=np.float32)
    assert index.nearest("content", query, 5)[0].tolist() == [0, 1]
    drop(index, records, "a")
    put(index, records, record("c", vector=[0.9, 0.1, 0, 0]))
    await settle(index)
    assert index.nearest("content", query, 5)[0].tolist() == [2, 1]
    assert index.unavailable("colour") is not None
    await index.close()
    again = opened()
    again.offer([ItemWrite(name, records.held.get(name)) for name in "abc"])
    again.scanned(complete=True)
    assert again.waiting == 0
    await settle(again)
    assert again.nearest("content", query, 5)[0].tolist() == [2, 1]
    await again.close()


def test_fingerprints_tell_contents_apart(tmp_path: Path) -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    marks = Fingerprints(tmp_path / "marks", "layout 1")
    assert not marks.load()
    marks.held = {1: 2, 2**64 - 1: 3}
    marks.save()
    again = Fingerprints(tmp_path / "marks", "layout 1")
    assert again.load()
    assert again.held == marks.held
    other = Fingerprints(tmp_path / "marks", "layout 2")
    assert not other.load()
    assert other.held == {}
