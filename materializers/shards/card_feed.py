"""Feeds the worker's item cards: every partition of ``tidal.items``, outside of the group.

The user shard needs creator and embedding of any item, whichever partition its record is in. The cards are
read to the topic's end before the first event is folded, then kept up to date.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Final

from confluent_kafka import Message

from materializers.cards import ItemCards
from materializers.interner import IdCollisionError, Interner
from materializers.shards.item_records import CopyMarks, ItemRecord, read_item_record
from schemas.model import Schema
from streams.errors import OffsetError
from streams.topics import ITEMS
from streams.whole_topic import WholeTopicReader, log_record

logger = logging.getLogger(__name__)

_Waiting = tuple[int, int, ItemRecord | None]
"""Partition, offset, and what the record says, None if that is nothing."""

_POLL_S: Final = 0.2
_RECORDS_AT_ONCE: Final = 500
"""Decoding an embedding of 384 dimensions takes about 50 us: this bounds one stop of the event loop to 25
ms.
"""
_ADVANCE_EVERY_S: Final = 0.2
_WAITING_MAX: Final = 2_000
"""Each advance may cost every user partition a row of ``card_positions``, so records are taken in together;
but setting 2,000 cards stops the event loop for 20 ms.
"""
_SAVE_EVERY_S: Final = 30.0


def open_cards(
    folder: Path, brokers: str, schema: Schema, items: Interner, creators: Interner
) -> tuple[ItemCards, WholeTopicReader]:
    """The cards of the last run and a reader that goes on where they end; both new if the log was
    replaced.
    """
    cards = ItemCards(folder, schema, items, creators)
    try:
        return cards, WholeTopicReader(brokers, ITEMS, cards.next_offsets)
    except OffsetError as error:
        logger.warning("%s; the item cards are built anew", error)
        shutil.rmtree(folder)
        return ItemCards(folder, schema, items, creators), WholeTopicReader(brokers, ITEMS)


class CardFeed:
    """Applies item records to the cards."""

    def __init__(
        self,
        cards: ItemCards,
        reader: WholeTopicReader,
        schema: Schema,
        partitions: int,
        on_turn: Callable[[], None],
    ) -> None:
        """``on_turn`` is called on the event loop a few times a second, also after the cards advanced."""
        self._partitions = partitions
        self._copies = CopyMarks(cards.copies)
        self._cards = cards
        self._reader = reader
        self._schema = schema
        self._on_turn = on_turn
        self._saved_s = self._advanced_s = time.monotonic()
        self._unsaved = False
        self._waiting: list[_Waiting] = []

    @property
    def cards(self) -> int:
        """Items that have a card."""
        return len(self._cards)

    def catch_up(self, wanted: Callable[[], bool]) -> None:
        """Read to the present end of the topic while ``wanted`` says yes. Blocks, so in a thread; call it
        before anything is folded.
        """
        started_s = time.monotonic()
        while not self._reader.caught_up and wanted():
            self._take(self._reader.poll_messages(_POLL_S))
            self._advance()
        self._save()
        logger.info("%d item cards after %.1f s", len(self._cards), time.monotonic() - started_s)

    async def run(self) -> None:
        """Keep up until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            poll = self._reader.poll_messages
            self._take(await loop.run_in_executor(None, poll, self._wait_s(), _RECORDS_AT_ONCE))
            if self._waiting and (not self._wait_s() or len(self._waiting) >= _WAITING_MAX):
                self._advance()
            # Also without news: a partition that was just acquired may wait for what the cards have long had.
            self._on_turn()
            if self._unsaved and time.monotonic() - self._saved_s > _SAVE_EVERY_S:
                self._save()

    def close(self) -> None:
        """Save and leave the log; only when ``run`` has ended."""
        self._reader.close()
        self._save()

    def _save(self) -> None:
        self._cards.save()
        self._saved_s, self._unsaved = time.monotonic(), False

    def _wait_s(self) -> float:
        """How long until the cards may advance; a whole interval if nothing waits for that."""
        due_s = self._advanced_s + _ADVANCE_EVERY_S - time.monotonic()
        return max(0.0, due_s) if self._waiting else _POLL_S

    def _take(self, messages: list[Message]) -> None:
        """Decode, and let wait."""
        for record in map(log_record, messages):
            found = read_item_record(record.partition, self._partitions, record, self._schema)
            self._waiting.append((record.partition, record.offset, found))

    def _advance(self) -> None:
        """Apply what waits, each partition in order."""
        for partition, group in groupby(sorted(self._waiting, key=_place), key=lambda row: row[0]):
            rows = list(group)
            for record in (record for _, _, record in rows if record is not None):
                if self._copies.is_news(partition, record):
                    self._apply(partition, record)
            self._cards.advance(partition, rows[-1][1] + 1)
        self._unsaved = self._unsaved or bool(self._waiting)
        self._waiting.clear()
        self._advanced_s = time.monotonic()

    def _apply(self, partition: int, record: ItemRecord) -> None:
        try:
            self._cards.apply(partition, [record.write])
        except IdCollisionError as error:
            logger.warning("%s", error)


def _place(waiting: _Waiting) -> tuple[int, int]:
    return waiting[:2]
