"""From positions of candidates to the reply: ids, fields, terms, the next cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from queryd.cursor import SHOWN_MAX, CursorCodec, CursorState, query_digest
from queryd.execute.context import Context
from queryd.execute.explain import plan_steps
from queryd.execute.pipeline import Page
from queryd.hot.arrays import U32
from queryd.hot.columns import HotColumns
from queryd.records import RecordReads
from queryd.reply import Explanation, QueryResult, ScoreTerm


class Assembler:
    """Makes the rows of a reply; the only place where candidates become objects."""

    def __init__(self, records: RecordReads, cursors: CursorCodec) -> None:
        self._records = records
        self._cursors = cursors

    def results(self, context: Context, page: Page) -> list[QueryResult]:
        """Rows in the order of the page, ranks counted over all pages."""
        rows = page.rows
        ordinals = page.candidates.ordinals[rows].tolist()
        scores = page.candidates.scores[rows].tolist()
        ids = [context.hot.items.ordinals.ids[ordinal] for ordinal in ordinals]
        fields = self._fields(ids, context.plan.query.fields)
        terms = _terms(context, page)
        first = len(context.shown) + 1
        return [
            QueryResult(id_, first + place, score, exploration=False, fields=shown, terms=why)
            for place, (id_, score, shown, why) in enumerate(zip(ids, scores, fields, terms, strict=True))
        ]

    def _fields(self, ids: list[str], names: Sequence[str]) -> list[dict[str, Any] | None]:
        if not names:
            return [None] * len(ids)
        found: list[dict[str, Any] | None] = []
        for row in self._records.stored("item", ids):
            record = {} if row is None else msgspec.json.decode(row.raw)
            found.append({name: record[name] for name in names if name in record})
        return found

    def next_cursor(self, context: Context, page: Page, now_ms: int) -> str | None:
        """Where the next page begins, None after the last."""
        plan = context.plan
        if not page.more or not len(page.rows):
            return None
        if len(context.shown) + len(page.rows) > SHOWN_MAX:
            context.report.warn(f"pages end after {SHOWN_MAX} items")
            return None
        rows = np.concatenate([context.shown, page.candidates.ordinals[page.rows]])
        state = CursorState(
            schema_version=context.hot.schema.version,
            profile=plan.profile_reference,
            query=query_digest(plan.query),
            at_ms=context.at_ms,
            seed=context.seed,
            issued_ms=now_ms,
            shown=context.hot.items.ordinals.entity_ids[rows].astype("<u8").tobytes(),
        )
        return self._cursors.encode(state)


class TitleReader:
    """Titles of items, read from their records."""

    def __init__(self, records: RecordReads, hot: HotColumns) -> None:
        self._records = records
        self._hot = hot

    def titles(self, ordinals: U32) -> list[str]:
        """One title for each item, "" where there is none."""
        ids = [self._hot.items.ordinals.ids[row] for row in ordinals.tolist()]
        found = self._records.stored("item", ids)
        return ["" if row is None else str(msgspec.json.decode(row.raw).get("title", "")) for row in found]


def explained(context: Context) -> Explanation:
    """The plan, and after ANALYZE what each stage did."""
    stages = [stage.as_json() for stage in context.report.stages]
    return Explanation(plan_steps(context), stages if context.plan.query.explain == "analyze" else [])


def _terms(context: Context, page: Page) -> list[list[ScoreTerm] | None]:
    rows = page.rows
    if context.plan.query.explain != "analyze":
        return [None] * len(rows)
    columns = [
        (column.name, column.weight, column.values[rows].tolist(), column.contributions[rows].tolist())
        for column in page.candidates.terms
    ]
    return [
        [
            ScoreTerm(name, values[place], weight, contributions[place])
            for name, weight, values, contributions in columns
        ]
        for place in range(len(rows))
    ]
