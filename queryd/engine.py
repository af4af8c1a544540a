"""The engine: answers queries and reads for the daemon, from columns that it keeps current."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from materializers.materializer import Scope as TableScope
from queryd.assembly import Assembler, TitleReader, explained
from queryd.cohort_reads import CohortReads
from queryd.compare import MIN_COUNT, Question, compare
from queryd.creators import CreatorFacts
from queryd.cursor import CursorCodec, check_same_list
from queryd.erasures import ErasureReads
from queryd.errors import EngineNotReady, PositionTimeout, QueryError
from queryd.estimate.ahead import AheadSums
from queryd.estimate.budget import Budget
from queryd.estimate.estimator import CohortEstimator
from queryd.estimate.request import CohortCounts
from queryd.execute.context import Context
from queryd.execute.pipeline import Page, execute
from queryd.execute.report import Report
from queryd.graph import Graph
from queryd.hot.arrays import U32, Mask
from queryd.hot.bucket_reads import Scope
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.distinct import DistinctUsers
from queryd.hot.edges_ahead import AheadWrite
from queryd.hot.feeder import Feeder
from queryd.hot.items import ItemWrite
from queryd.hot.loading import Loader
from queryd.hot.population import Population
from queryd.hot.reads import SignalReads
from queryd.hot.segments import SegmentMembers
from queryd.hot.tables import Tables
from queryd.hot.users import UserReader
from queryd.language.ast import Query
from queryd.language.json_form import from_json
from queryd.language.parse import parse_query
from queryd.ledgers import Ledgers, ranges_of_users
from queryd.plan.plan import Plan
from queryd.plan.planner import make_plan, usual_signal
from queryd.positions import AppliedPositions
from queryd.records import RecordReads
from queryd.reply import CohortComparison, Degradation, Ledger, QueryReply
from queryd.text.index import TextIndex
from queryd.user_reads import UserReads
from queryd.vector.index import VectorIndex
from schemas.model import Schema
from schemas.predicate import to_text
from schemas.settings import Settings
from streams.positions import Positions

log = logging.getLogger(__name__)

_PLANS_MAX: Final = 1024
_AFTER_DEADLINES: Final = 10
"""AFTER may wait ten query deadlines: a write passes two logs before it is visible, a query none."""
_KEY_BYTES: Final = 32
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the engine may serve, why not yet, and how far it is."""

    ready: bool
    why: Sequence[str]
    progress: Mapping[str, Any]


class Engine:
    """One engine of one daemon.

    Args:
        settings: of the installation; the engine's own files go to ``<data_dir>/<name>``.
        tables: the read side of the workers' tables.
        clock_ms: wall clock in epoch ms; injectable for tests.
    """

    def __init__(
        self,
        settings: Settings,
        schema: Schema,
        tables: Tables,
        *,
        name: str = "queryd-0",
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        self.schema = schema
        self._settings = settings
        self._tables = tables
        self._folder = Path(settings.site.data_dir) / name
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        partitions = settings.topics.partitions
        item = schema.entities["item"]
        self._hot = HotColumns(schema)
        self._cold = ColdTier(tables, self._hot)
        self._ahead = AheadSums(self._hot, self._clock_ms)
        budget = Budget.of(settings.queryd, schema.limits.deadline_ms)
        self._estimator = CohortEstimator(self._hot, self._cold, budget, self._ahead)
        self._users = UserReader(tables, self._hot, partitions)
        graph = Graph(tables, self._hot, self._users, partitions)
        self._user_reads = UserReads(schema, self._hot, self._users, graph, self._clock_ms)
        self._records = RecordReads(tables, schema, partitions)
        self._creators = CreatorFacts(schema, self._hot.items, self._users)
        self._erasures = ErasureReads(tables, settings.topics)
        ordinals = self._hot.items.ordinals
        self._text = TextIndex(self._folder / "text", item, ordinals, self._records)
        self._vectors = VectorIndex(
            self._folder / "vectors",
            list(item.embeddings.values()),
            ordinals,
            self._records,
            settings.queryd.qdrant_url,
        )
        self._positions = AppliedPositions(tables, partitions, self._text)
        self._segments = SegmentMembers(tables, schema, self._clock_ms)
        population = Population(tables, schema, partitions, self._segments)
        self._cohorts = CohortReads(schema, self._hot, population)
        self._loader = Loader(tables, self._hot, self._cold, self._offer, population, self._segments)
        self._feeder = Feeder(
            tables,
            self._hot,
            self._loader,
            clock_ms=self._clock_ms,
            applied=self._caught_up,
            interval_s=settings.queryd.catch_up_interval_ms / 1000,
        )
        self._cursors: CursorCodec | None = None
        self._assembler: Assembler | None = None
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: list[str] = []
        self._loaded = False
        self.queries = 0

    @property
    def hot(self) -> HotColumns:
        """The columns, for benchmarks and tests."""
        return self._hot

    @property
    def feeder(self) -> Feeder:
        """What keeps them current, for benchmarks and tests."""
        return self._feeder

    @property
    def ahead(self) -> AheadSums:
        """What makes the sums that estimates missed, for benchmarks and tests."""
        return self._ahead

    async def start(self, *, follow: bool = True) -> None:
        """Read the tables and begin to follow them; queries are answered once it returns.

        ``follow`` False leaves each step to the caller: ``feeder.step`` and ``index_everything``.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cursors = CursorCodec(_cursor_key(self._folder / "cursor.key"))
        self._assembler = Assembler(self._records, self._cursors)
        self._text.open()
        self._vectors.open()
        await self._feeder.load()
        complete = len(self._tables.partitions(TableScope.ENTITY)) == self._settings.topics.partitions
        self._text.scanned(complete=complete)
        self._vectors.scanned(complete=complete)
        self._loaded = True
        if not follow:
            return
        for name, work in (
            ("feeder", self._feeder.run()),
            ("text", self._text.run()),
            ("vector", self._vectors.run()),
            ("cohort sums", self._ahead.run()),
        ):
            task = asyncio.create_task(work, name=f"queryd {name}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def index_everything(self) -> None:
        """Work until both indexes hold every record; for an engine that does not follow by itself."""
        for follower in (self._text, self._vectors):
            while not follower.current:
                await follower.step()

    async def stop(self) -> None:
        """Stop following, and leave the indexes committed on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._loaded:
            await self._text.close()
            await self._vectors.close()
        self._loaded = False

    async def query(self, query: str | Mapping[str, Any] | Query, now_ms: int | None = None) -> QueryReply:
        """A ranked page.

        Args:
            query: text, the JSON form, or a built query.
            now_ms: the time to rank at, for reproducible pages; the clock by default.

        Raises:
            QueryFailed: see ``queryd.errors`` for its kinds.
        """
        began = time.perf_counter()
        self._require_ready()
        plan = self._plan(query)
        if plan.query.after is not None:
            await self._wait_for(plan)
        if plan.cohort is not None:
            await self._cohorts.refuse_small(plan.cohort)
        self.queries += 1
        return self._answer(plan, began, now_ms)

    async def ledger(
        self,
        kind: str,
        id: str,
        signal: str | None = None,
        window: str | None = None,
        at: int | None = None,
        cohort: str | None = None,
    ) -> Ledger | dict[str, Ledger] | None:
        """One ledger, or without ``signal`` one for each signal; None for an entity never heard of.

        Raises:
            QueryError: a signal, window or cohort that the schema lacks, or a time that has not passed.
        """
        self._require_ready()
        items = self._items_of(kind, id)
        if items is None:
            return None
        now_ms = self._clock_ms()
        _refuse_future(at, now_ms)
        reads = SignalReads(self._hot, self._cold, now_ms, now_ms if at is None else at)
        scope = Scope(None if cohort is None else self._cohorts.parsed(cohort))
        if scope.cohort is not None:
            await self._cohorts.refuse_small(scope.cohort)
        if signal is not None and signal not in self.schema.signals:
            raise QueryError(f"no signal is called {signal!r}", expected=sorted(self.schema.signals))
        asked = self.schema.signal_list if signal is None else [self.schema.signals[signal]]
        users = DistinctUsers(self._tables, self._hot, items)
        await users.load(ranges_of_users(reads, scope, asked, window))
        current = self._items_of(kind, id)  # there may be more of them by now
        items = items if current is None else current
        warnings = [] if scope.cohort is None else self._cohorts.warnings(scope.cohort)
        ledgers = Ledgers(self._hot, reads, items, users, scope, cohort, warnings)
        if signal is not None:
            return ledgers.of(id, self.schema.signals[signal], window)
        return {
            each.name: ledgers.of(id, each, window)
            for each in self.schema.signal_list
            if window is None or window in each.windows
        }

    async def user_state(
        self, user: str, state: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> dict[str, Any]:
        """Items of a user by state, ids ascending; ``cursor`` goes on where the page of one state ended.

        Raises:
            QueryError: a state that the schema lacks, or a cursor without one.
            CursorError: a cursor of another list.
        """
        self._require_ready()
        return self._user_reads.states(user, state, limit, cursor)

    async def user_relationships(
        self, user: str, type: str | None = None, limit: int = 100
    ) -> dict[str, Any]:
        """Edges out of a user, heaviest first, weights decayed to now."""
        self._require_ready()
        return await self._user_reads.relationships_of(user, type, limit)

    async def user_preference(self, user: str) -> dict[str, Any]:
        """The user's preference vectors by slot; a slot without an update is absent."""
        self._require_ready()
        return self._user_reads.preference(user)

    async def user_segments(self, user: str) -> dict[str, Any]:
        """The segments that a user is in now, and until when if nothing happens."""
        self._require_ready()
        stays = self._segments.of_user(user, self._clock_ms())
        segments = [{"name": stay.segment, "until": stay.until_ms} for stay in stays]
        return {"user": user, "segments": segments}

    async def two_hops(self, user: str, type: str, fan_out: int = 50, limit: int = 100) -> dict[str, Any]:
        """Whom those that the user has edges of a type to have such edges to, heaviest first."""
        self._require_ready()
        return await self._user_reads.two_hops(user, type, fan_out, limit)

    async def similar_users(self, user: str, state: str | None = None, limit: int = 20) -> dict[str, Any]:
        """Users who share items in a state, the most alike first."""
        self._require_ready()
        return await self._user_reads.similar(user, state, limit)

    async def relationships(
        self, type: str, id: str, direction: str = "out", limit: int = 100, order: str = "weight"
    ) -> dict[str, Any]:
        """Edges of one type out of or into an entity, heaviest or newest first, and how many there are."""
        self._require_ready()
        return await self._user_reads.relationships(type, id, direction, limit, order)

    async def relationship(self, type: str, source: str, target: str) -> dict[str, Any] | None:
        """One edge, None when there is none."""
        self._require_ready()
        return self._user_reads.relationship(type, source, target)

    def may_hide(self) -> bool:
        """Whether another hiding edge can be shown before the tables have it; if not, they are far behind."""
        return self._users.ahead.has_room()

    def edge_written(self, write: AheadWrite) -> None:
        """Tells of an edge that the log has acknowledged: if its type hides, the next query knows."""
        if self.schema.relationships[write.type].hides:
            self._users.ahead.add(write)

    async def cohorts(self) -> dict[str, Any]:
        """Declared cohorts, segments and dimensions."""
        return {
            "cohorts": [
                {"name": each.name, "predicate": to_text(each.predicate)}
                for each in self.schema.cohorts.values()
            ],
            "segments": [
                {"name": each.name, "predicate": each.text, "users": self._segment_size(each.name)}
                for each in self.schema.segments.values()
            ],
            "dimensions": list(self.schema.dimensions),
        }

    def _segment_size(self, name: str) -> int | None:
        """Users who are in a segment now; None if there are fewer than may be told."""
        users = self._segments.count(name)
        return users if users >= self.schema.limits.min_cohort_size else None

    async def cohort_size(self, cohort: str) -> dict[str, Any]:
        """Distinct users who are in a cohort now.

        Raises:
            QueryError: no cohort, or one that names what the schema lacks.
            CohortTooSmall: fewer than the schema's ``min_cohort_size``: the number is not told.
        """
        self._require_ready()
        predicate = self._cohorts.parsed(cohort)
        await self._cohorts.refuse_small(predicate)
        users = await self._cohorts.size(predicate)
        warnings = self._cohorts.warnings(predicate)
        return {"cohort": cohort, "users": users, "estimator": "exact", "warnings": warnings}

    async def compare_cohorts(
        self,
        a: str,
        b: str,
        signal: str | None = None,
        window: str = "24h",
        at: int | None = None,
        limit: int = 20,
        min_count: int = MIN_COUNT,
    ) -> CohortComparison:
        """Items by lift of one cohort over another.

        Args:
            signal: whose events are compared; without it, those that trends count.
            min_count: items with fewer events in both cohorts together are left out.

        Raises:
            QueryError: no cohort, signal or window of the schema, or a time that has not passed.
            CohortTooSmall: one of the two.
        """
        self._require_ready()
        question = Question(a, b, signal or usual_signal(self.schema), window, limit, min_count)
        question.check(self.schema)
        now_ms = self._clock_ms()
        _refuse_future(at, now_ms)
        cohorts = self._cohorts.parsed(a, "a"), self._cohorts.parsed(b, "b")
        await self._cohorts.refuse_small(*cohorts)
        sizes = await self._cohorts.size(cohorts[0]), await self._cohorts.size(cohorts[1])
        reads = self.reads(now_ms, now_ms if at is None else at)
        found = compare(question, cohorts, sizes, self._hot, reads)
        said = [warning for cohort in cohorts for warning in self._cohorts.warnings(cohort)]
        return msgspec.structs.replace(found, warnings=list(dict.fromkeys([*said, *found.warnings])))

    async def record(self, kind: str, id: str) -> bytes | None:
        """The current record of an item, user or creator as JSON, None when there is none."""
        self._require_ready()
        row = self._records.stored(kind, [id])[0]
        return None if row is None else row.raw

    async def creator_facts(self, creator: str) -> dict[str, Any]:
        """A creator's catalog and followers."""
        self._require_ready()
        return self._creators.of(creator)

    async def erasure(self, name: str) -> dict[str, Any] | None:
        """What became of an erasure, None if there is none of that name."""
        self._require_ready()
        return self._erasures.report(name)

    async def wait_applied(self, positions: Positions, timeout_s: float) -> bool:
        """Whether everything at these positions became visible in time."""
        return await self._positions.wait(positions, timeout_s, indexed=True)

    def readiness(self) -> Readiness:
        """Tables read, feed followed, lag under its bound?"""
        why = list(self._failures)
        if not self._loaded:
            why.append(f"the tables are being read: {self._feeder.loading or 'not begun'}")
        progress = {
            "items": len(self._hot.items),
            "text_waiting": self._text.waiting,
            "vectors_waiting": self._vectors.waiting,
        }
        return Readiness(not why, why, progress)

    def status(self) -> dict[str, Any]:
        """What ``/v1/status`` says of the engine."""
        hot = self._hot
        return {
            "ready": self.readiness().ready,
            "schema": {"name": self.schema.name, "version": self.schema.version},
            "freshness_ms": self._freshness_ms(),
            "queries": self.queries,
            "changes_applied": self._feeder.changes_applied,
            "items": len(hot.items),
            "profiles": len(hot.profiles),
            "estimates": {
                "made": self._estimator.estimates,
                "sums_waiting": self._ahead.waiting,
                "sums_made": self._ahead.made,
            },
            "cells": {"everybody": hot.everybody.cells, "by_profile": hot.by_profile.cells},
            "segments": {name: self._segment_size(name) for name in self.schema.segments},
            "records_unreadable": self._loader.records_unreadable,
            "text": {"indexed": self._text.indexed, "waiting": self._text.waiting},
            "vectors": {"indexed": self._vectors.indexed, "waiting": self._vectors.waiting},
            "tables": dict(self._tables.status()),
        }

    def _require_ready(self) -> None:
        if not self._loaded:
            raise EngineNotReady(
                f"the tables are being read: {self._feeder.loading or 'not begun'}; try again"
            )

    def _plan(self, query: str | Mapping[str, Any] | Query) -> Plan:
        if isinstance(query, Query):
            return make_plan(query, self.schema)
        key = query if isinstance(query, str) else msgspec.json.encode(query, order="sorted").decode()
        plan = self._plans.pop(key, None)
        if plan is None:
            limits = self.schema.limits
            if isinstance(query, str):
                parsed = parse_query(
                    query, text_bytes_max=limits.max_query_text_bytes, depth_max=limits.max_predicate_depth
                )
            else:
                parsed = from_json(query, depth_max=limits.max_predicate_depth)
            plan = make_plan(parsed, self.schema)
        _remember(self._plans, key, plan, _PLANS_MAX)
        return plan

    async def _wait_for(self, plan: Plan) -> None:
        assert plan.query.after is not None
        positions = Positions.parse(plan.query.after)
        timeout_s = _AFTER_DEADLINES * self.schema.limits.deadline_ms / 1000
        indexed = any(source.source == "text" for source in plan.sources)
        if not await self._positions.wait(positions, timeout_s, indexed=indexed):
            raise PositionTimeout(
                f"the write at {plan.query.after} was not visible within {timeout_s:g} s; "
                "the workers are behind: ask again, or without AFTER"
            )

    def _answer(self, plan: Plan, began: float, now_ms: int | None) -> QueryReply:
        query = plan.query
        context = self._context(plan, self._clock_ms() if now_ms is None else now_ms)
        page = None if query.explain == "plan" else execute(context)
        assert self._assembler is not None
        with context.report.stage("assembly", "reply", 0 if page is None else len(page.rows)) as stage:
            results = [] if page is None else self._assembler.results(context, page)
            cursor = None if page is None else self._assembler.next_cursor(context, page, self._clock_ms())
            stage.rows_out = len(results)
        for warning in context.reads.warnings():
            context.report.warn(warning)
        return QueryReply(
            request_id=secrets.token_hex(16),
            results=results,
            cursor=cursor,
            total_estimate=0 if page is None else page.total,
            estimator=context.reads.estimator,
            freshness_ms=self._freshness_ms(),
            degraded=[Degradation(**each) for each in context.report.degraded],
            warnings=context.report.warnings,
            took_us=round((time.perf_counter() - began) * 1e6),
            explain=None if query.explain == "no" else explained(context),
            error_bound=None if page is None else context.reads.error_bound(_shown(page)),
        )

    def _context(self, plan: Plan, now_ms: int) -> Context:
        query = plan.query
        report = Report(time.monotonic() + self.schema.limits.deadline_ms / 1000)
        at_ms, seed = now_ms if query.as_of_ms is None else query.as_of_ms, query.seed or 0
        shown: U32 = np.zeros(0, dtype=np.uint32)
        if query.cursor is not None:
            assert self._cursors is not None
            state = self._cursors.decode(query.cursor, self._clock_ms())
            check_same_list(state, query, self.schema.version, plan.profile_reference)
            at_ms, seed = state.at_ms, state.seed
            found = self._hot.items.ordinals.find_entities(state.shown_ids)
            shown = found[found >= 0].astype(np.uint32)
        if query.as_of_ms is not None:
            _check_past(plan, now_ms, report)
        context = Context(
            plan=plan,
            hot=self._hot,
            # A later page ages by the first one's clock, but its windows are those of the moment.
            reads=self.reads(now_ms, now_ms if query.as_of_ms is None else query.as_of_ms),
            users=self._users,
            text=self._text,
            vectors=self._vectors,
            titles=TitleReader(self._records, self._hot),
            report=report,
            at_ms=at_ms,
            seed=seed,
            shown=shown,
        )
        if self._loader.reading_anew:
            partitions = ", ".join(map(str, sorted(self._loader.reading_anew)))
            report.degrade("counts", f"partition {partitions} has a new owner and is being read")
        if plan.cohort is not None:
            for warning in self._cohorts.warnings(plan.cohort):
                report.warn(warning)
        return context

    def reads(self, now_ms: int, at_ms: int) -> SignalReads:
        """Reads of one request in which counts of a cohort may be estimated."""
        return SignalReads(self._hot, self._cold, now_ms, at_ms, CohortCounts(self._estimator))

    def _items_of(self, kind: str, id_: str) -> Mask | None:
        mask = np.zeros(len(self._hot.items), dtype=np.bool_)
        if kind == "item":
            ordinal = self._hot.items.ordinals.find(id_)
            if ordinal is None:
                return None
            mask[ordinal] = True
            return mask
        creator = self._hot.items.creators.find(id_)
        if creator is None:
            return mask if self._records.stored("creator", [id_])[0] is not None else None
        return np.asarray(self._hot.items.creator_column() == creator)

    def _offer(self, writes: list[ItemWrite]) -> None:
        self._text.offer(writes)
        self._vectors.offer(writes)

    def _caught_up(self) -> None:
        self._positions.announce()
        self._users.ahead.drop_old()

    def _freshness_ms(self) -> int | None:
        newest = self._feeder.newest_written_ms
        return max(0, self._clock_ms() - newest) if newest else None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A background task never ends by itself: if one does, the daemon says that it is not ready."""
        if task.cancelled():
            return
        error = task.exception()
        self._failures.append(f"{task.get_name()} stopped: {error!r}")
        log.error("%s stopped", task.get_name(), exc_info=error)


def _shown(page: Page) -> U32:
    """The items of the page."""
    rows: U32 = page.candidates.ordinals[page.rows]
    return rows


def _refuse_future(at_ms: int | None, now_ms: int, what: str = "the time", path: str = "at") -> None:
    if at_ms is not None and at_ms > now_ms:
        raise QueryError(f"{what} lies in the future", expected=["a time that has passed"], path=path)


def _check_past(plan: Plan, now_ms: int, report: Report) -> None:
    _refuse_future(plan.query.as_of_ms, now_ms, "AS OF", path="")
    report.warn("AS OF applies to signals and ages; records, preferences and user states are those of now")


def _remember(cache: OrderedDict[Any, _Value], key: Any, value: _Value, entries_max: int) -> None:
    """Put ``value`` at the fresh end of a bounded cache."""
    cache[key] = value
    if len(cache) > entries_max:
        cache.popitem(last=False)


def _cursor_key(path: Path) -> bytes:
    """The secret that cursors are signed with: made once, readable by its owner only."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    return path.read_bytes()
