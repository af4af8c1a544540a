"""Item cards of any moment of the past."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from materializers.batches import EntityWrite
from materializers.interner import Interner
from materializers.refold.item_history import CardsAsOf, ItemHistory
from schemas.loading import load_schema
from schemas.records.entities import EntityRecord

SCHEMA = load_schema({"name": "history", "entities": {"item": {"embeddings": {"look": {"dim": 2}}}}})


def _write(offset: int, item: str, creator: str, *look: float) -> EntityWrite:
    vectors = {"look": np.array(look, dtype=np.float32)} if look else {}
    return EntityWrite(offset, 0, item, EntityRecord("item", item, creator=creator, embeddings=vectors))


def test_each_partition_sees_the_versions_of_its_own_moment(tmp_path: Path) -> None:
    items, creators = Interner(), Interner()
    history = ItemHistory(tmp_path, SCHEMA, items, creators)
    history.add(0, _write(0, "a", "c1", 1, 0))
    history.add(0, _write(4, "a", "c2", 0, 1))
    history.add(0, EntityWrite(7, 0, "a", None))
    history.add(1, _write(0, "b", "c1"))
    wids = items.ids(["a", "b", "unknown"])
    early, late = CardsAsOf(history), CardsAsOf(history)
    early.move_to({0: 4})
    late.move_to({0: 5, 1: 1})
    assert (early.cards(wids) > 0).tolist() == [True, False, False]
    assert (late.cards(wids) > 0).tolist() == [True, True, False]
    one = wids[:1]
    assert creators.strings(early.creators(early.cards(one))) == ["c1"]
    assert creators.strings(late.creators(late.cards(one))) == ["c2"]
    assert early.vectors("look", early.cards(one)).tolist() == [[1.0, 0.0]]
    assert late.vectors("look", late.cards(one)).tolist() == [[0.0, 1.0]]
    late.move_to({0: 8, 1: 1})
    assert (late.cards(one) > 0).all(), "a deleted item is known: its events wait for nothing"
    assert creators.strings(late.creators(late.cards(one))) == [""]
    assert late.has_vector("look", late.cards(one)).tolist() == [False]


def test_a_move_to_a_worker_that_had_read_less_goes_back(tmp_path: Path) -> None:
    items, creators = Interner(), Interner()
    history = ItemHistory(tmp_path, SCHEMA, items, creators)
    history.add(0, _write(0, "a", "c1"))
    history.add(0, _write(1, "a", "c2"))
    history.add(1, _write(0, "b", "c1"))
    cards = CardsAsOf(history)
    wids = items.ids(["a", "b"])
    cards.move_to({0: 2, 1: 1})
    before = cards.version
    cards.move_to({0: 1})
    assert cards.version != before
    assert creators.strings(cards.creators(cards.cards(wids))) == ["c1", ""]
    assert cards.cards(wids).tolist()[1] == cards.NONE
    cards.move_to({0: 2, 1: 1})
    assert creators.strings(cards.creators(cards.cards(wids))) == ["c2", "c1"]


def test_items_that_are_named_later_than_the_cards_moved_have_room(tmp_path: Path) -> None:
    items, creators = Interner(), Interner()
    history = ItemHistory(tmp_path, SCHEMA, items, creators)
    for number in range(3_000):
        history.add(0, _write(number, f"i{number}", "c"))
    cards = CardsAsOf(history)
    cards.move_to({0: 3_000})
    more = items.ids([f"later{number}" for number in range(3_000)])
    assert not cards.cards(more).any()
    assert cards.cards(items.ids(["i2999"])).tolist() == [3_000]
