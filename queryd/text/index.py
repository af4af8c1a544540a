"""Items by their words: Tantivy, BM25."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import tantivy

from queryd.execute.context import TextHits
from queryd.fingerprints import fingerprint
from queryd.hot.arrays import U32
from queryd.hot.fields import as_words
from queryd.hot.ordinals import Ordinals
from queryd.index_follower import IndexFollower
from queryd.ranking.order import top
from queryd.records import RecordReads
from schemas.model import EntityDef
from schemas.records.entities import EntityRecord

LAYOUT: Final = "1"
BOOSTS: Final = {"title": 2.0}
"""A word of the title says more of an item than one of its description."""
WORDS_MAX: Final = 32
_HEAP_BYTES: Final = 64 << 20
_KEY = "_key"
_ENTITY = "_entity"


class TextIndex(IndexFollower):
    """Declared text and tags fields, each a field of the index of the same name.

    An item is found by a raw text key when it is replaced: deleting by an unsigned field deletes nothing.
    Hits come back as EntityIds from a fast field, which costs a twentieth of reading documents.
    """

    name = "text"

    def __init__(self, folder: Path, item: EntityDef, ordinals: Ordinals, records: RecordReads) -> None:
        self._fields = [field.name for field in item.fields.values() if field.type in ("text", "tags")]
        self._ordinals = ordinals
        self._index: Any = None
        self._writer: Any = None
        self._schema: Any = None
        kind = f"text {LAYOUT} {','.join(self._fields)}"
        super().__init__(folder, kind, records, batch=128, commit_every_s=0.25)

    @property
    def unavailable(self) -> str | None:
        """Why it cannot answer now, None when it can."""
        return self.why_unavailable

    def search(self, text: str, limit: int, among: U32 | None = None) -> TextHits:
        """The best ``limit`` matches of any word of ``text``, by BM25, then id.

        Bad syntax never fails: it is read as plain words, with a warning. ``among`` u32[m] restricts the
        search to some items, exactly; it costs about 0.5 µs for each of them.
        """
        warnings: list[str] = []
        words = text.split()
        if len(words) > WORDS_MAX:
            warnings.append(f"only the first {WORDS_MAX} words of the search text were used")
            text = " ".join(words[:WORDS_MAX])
        query, problems = self._index.parse_query_lenient(text, self._fields, field_boosts=self._boosts())
        if problems:
            warnings.append("the search text has syntax that is not understood; it was read as words")
        if among is not None:
            keys = [_key_text(key) for key in self._ordinals.entity_ids[among].tolist()]
            allowed = tantivy.Query.term_set_query(self._schema, _KEY, keys)
            # A filter that kept its own score would add 1 to every hit's.
            unscored = tantivy.Query.const_score_query(allowed, 0.0)
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, unscored)])
        return self._hits(query, limit, tuple(warnings))

    def _hits(self, query: Any, limit: int, warnings: tuple[str, ...]) -> TextHits:
        searcher = self._index.searcher()
        result = searcher.search(query, limit)
        scores = np.array([score for score, _ in result.hits], dtype=np.float64)
        entities = searcher.fast_field_values(_ENTITY, [address for _, address in result.hits])
        found = self._ordinals.find_entities(np.array(entities, dtype=np.uint64))
        known = found >= 0
        ordinals = found[known].astype(np.uint32)
        best = top(ordinals, scores[known], len(ordinals), self._ordinals)
        total = int(result.count) if result.count is not None else len(ordinals)
        return TextHits(ordinals[best], scores[known][best], total, warnings)

    def _boosts(self) -> dict[str, float]:
        return {name: boost for name, boost in BOOSTS.items() if name in self._fields}

    def _open(self, *, reuse: bool) -> None:
        if not (reuse and self._folder.exists() and tantivy.Index.exists(str(self._folder))):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._fingerprints.held = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        builder = tantivy.SchemaBuilder()
        builder.add_text_field(_KEY, stored=False, tokenizer_name="raw", index_option="basic")
        builder.add_unsigned_field(_ENTITY, stored=False, indexed=False, fast=True)
        for name in self._fields:
            builder.add_text_field(name, stored=False, tokenizer_name="default", index_option="position")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema, path=str(self._folder))
        self._writer = self._index.writer(heap_size=_HEAP_BYTES, num_threads=1)

    def _fingerprint(self, record: EntityRecord) -> int | None:
        if record.status != "active":
            return None
        words = (word for name in self._fields for word in (name, *_texts(record, name)))
        return fingerprint(*(word.encode() for word in words))

    def _write(self, upserts: list[tuple[int, EntityRecord]], deletes: list[int]) -> None:
        for key in (*deletes, *(key for key, _ in upserts)):
            self._writer.delete_documents_by_term(_KEY, _key_text(key))
        for key, record in upserts:
            document = tantivy.Document()
            document.add_text(_KEY, _key_text(key))
            document.add_unsigned(_ENTITY, key)
            for name in self._fields:
                for text in _texts(record, name):
                    document.add_text(name, text)
            self._writer.add_document(document)

    async def _commit(self) -> None:
        """In a thread: it takes 10 to 200 ms without the GIL; nothing else touches the writer meanwhile."""
        await asyncio.to_thread(self._writer.commit)
        self._index.reload()

    async def _close(self) -> None:
        # Gives the folder's lock back for certain; dropping the writer does so only when it is collected.
        await asyncio.to_thread(self._writer.wait_merging_threads)
        self._writer = None
        self._index = None


def _key_text(entity: int) -> str:
    return f"{entity:016x}"


def _texts(record: EntityRecord, name: str) -> tuple[str, ...]:
    return as_words(record.fields.get(name))
