"""Item cards: what a record gives, what survives a restart and a crash."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from materializers import cards as cards_module
from materializers.batches import EntityWrite
from materializers.cards import ItemCards
from materializers.interner import Interner
from schemas.loading import load_schema
from schemas.records.entities import EntityRecord

SCHEMA = load_schema(
    {
        "name": "cards",
        "entities": {"item": {"embeddings": {"look": {"dim": 3}, "sound": {"dim": 2, "metric": "dot"}}}},
    }
)


def opened(folder: Path) -> tuple[ItemCards, Interner, Interner]:
    items, creators = Interner(), Interner()
    items.ids(["somebody else's"])
    return ItemCards(folder, SCHEMA, items, creators), items, creators


def write(offset: int, item: str, creator: str | None = None, **embeddings: list[float]) -> EntityWrite:
    vectors = {name: np.array(vector, dtype=np.float32) for name, vector in embeddings.items()}
    return EntityWrite(offset, 0, item, EntityRecord("item", item, creator=creator, embeddings=vectors))


def test_a_card_has_the_creator_and_the_vectors(tmp_path: Path) -> None:
    cards, items, creators = opened(tmp_path)
    fresh = cards.apply(0, [write(0, "a", "c", look=[0, 1, 0]), write(1, "b", sound=[3, 4])])
    assert items.strings(fresh) == ["a", "b"]
    card = cards.cards(items.ids(["a", "b", "unknown"]))
    assert (card > 0).tolist() == [True, True, False]
    assert creators.strings(cards.creators(card)) == ["c", "", ""]
    assert cards.has_vector("look", card).tolist() == [True, False, False]
    assert cards.has_vector("sound", card).tolist() == [False, True, False]
    assert cards.vectors("look", card[:1]).tolist() == [[0.0, 1.0, 0.0]]
    assert cards.vectors("sound", card[1:2]).tolist() == [pytest.approx([0.6, 0.8])]


def test_a_later_record_replaces_and_a_delete_empties_the_card(tmp_path: Path) -> None:
    cards, items, creators = opened(tmp_path)
    cards.apply(0, [write(0, "a", "c", look=[0, 1, 0]), write(1, "b", "c", look=[1, 0, 0])])
    fresh = cards.apply(0, [write(2, "a", "d"), EntityWrite(3, 0, "b", None)])
    assert len(fresh) == 0
    card = cards.cards(items.ids(["a", "b"]))
    assert creators.strings(cards.creators(card)) == ["d", ""]
    assert cards.has_vector("look", card).tolist() == [False, False]
    assert (card > 0).all()


def test_an_applied_offset_is_not_applied_again(tmp_path: Path) -> None:
    cards, items, creators = opened(tmp_path)
    cards.apply(0, [write(0, "a", "c"), write(5, "a", "d")])
    cards.apply(0, [write(0, "a", "c")])
    assert creators.strings(cards.creators(cards.cards(items.ids(["a"])))) == ["d"]
    cards.apply(1, [write(0, "a", "e")])
    assert creators.strings(cards.creators(cards.cards(items.ids(["a"])))) == ["e"]
    cards.advance(1, 9)
    assert cards.next_offsets == {0: 6, 1: 9}


def test_a_restart_reads_on_from_the_saved_offsets(tmp_path: Path) -> None:
    cards, _, _ = opened(tmp_path)
    names = [f"i{number}" for number in range(3000)]
    cards.apply(
        3, [write(at, name, f"c{at % 7}", look=[at, 1, 0]) for at, name in enumerate(names) if at != 5]
    )
    cards.save()
    again, items, creators = opened(tmp_path)
    assert again.next_offsets == {3: 3000}
    card = again.cards(items.ids(names))
    assert (card == 0).sum() == 1
    known = np.flatnonzero(card)
    assert creators.strings(again.creators(card[known])) == [f"c{at % 7}" for at in known.tolist()]
    assert again.has_vector("look", card[known]).all()
    assert again.vectors("look", card[known])[:, 0].tolist() == known.tolist()


def test_what_was_not_saved_is_read_again(tmp_path: Path) -> None:
    cards, _, _ = opened(tmp_path)
    cards.apply(0, [write(0, "a", "c", look=[1, 0, 0])])
    cards.save()
    cards.apply(0, [write(1, "a", "d", look=[0, 0, 1]), write(2, "b", "d")])
    again, items, creators = opened(tmp_path)
    assert again.next_offsets == {0: 1}
    again.apply(0, [write(1, "a", "d", look=[0, 0, 1]), write(2, "b", "d")])
    card = again.cards(items.ids(["a", "b"]))
    assert creators.strings(again.creators(card)) == ["d", "d"]
    assert again.vectors("look", card[:1]).tolist() == [[0.0, 0.0, 1.0]]


def test_a_torn_journal_is_cut_at_the_saved_length(tmp_path: Path) -> None:
    cards, _, _ = opened(tmp_path)
    cards.apply(0, [write(0, "a", "c")])
    cards.save()
    [journal] = tmp_path.glob("cards-*.log")
    with journal.open("ab") as file:
        file.write(b"\xff\xff\xff half a frame")
    again, items, _ = opened(tmp_path)
    again.apply(0, [write(1, "b", "c")])
    again.save()
    third, items, _ = opened(tmp_path)
    assert (third.cards(items.ids(["a", "b"])) > 0).all()


def test_many_updates_do_not_grow_the_journal_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards_module, "_GROWTH_MIN", 10)
    cards, _, _ = opened(tmp_path)
    sizes = []
    for offset in range(200):
        cards.apply(0, [write(offset, f"i{offset % 5}", f"c{offset}")])
        cards.save()
        [journal] = tmp_path.glob("cards-*.log")
        sizes.append(journal.stat().st_size)
    assert max(sizes[60:]) < 1.2 * max(sizes[:60])
    again, items, creators = opened(tmp_path)
    last = again.creators(again.cards(items.ids([f"i{number}" for number in range(5)])))
    assert creators.strings(last) == [f"c{195 + number}" for number in range(5)]


def test_another_dimension_starts_anew(tmp_path: Path) -> None:
    cards, _, _ = opened(tmp_path)
    cards.apply(0, [write(0, "a", "c", look=[1, 0, 0])])
    cards.save()
    slot = msgspec.structs.replace(SCHEMA.entities["item"].embeddings["look"], dim=4)
    item = msgspec.structs.replace(SCHEMA.entities["item"], embeddings={"look": slot})
    changed = msgspec.structs.replace(SCHEMA, entities={**SCHEMA.entities, "item": item})
    again = ItemCards(tmp_path, changed, Interner(), Interner())
    assert again.next_offsets == {}
    assert len(again) == 0
