"""The status as tables for a terminal. Pure: takes what /v1/status and /readyz said, prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from queryd.http.shapes import Readiness, Status
from tidal.cli.output import shown

KIB = 1 << 10
MIB = 1 << 20


def render(state: Status, readiness: Readiness) -> RenderableType:
    """Everything, the most important first."""
    parts: list[RenderableType] = [_headline(state, readiness), _log(state.log)]
    views = _views(state.log.get("scopes", {}), state.workers)
    if views is not None:
        parts.append(views)
    if state.log.get("retention"):
        parts.append(_retention(state.log["retention"]))
    if state.workers:
        parts.append(_workers(state.workers))
    tables = _tables(state.workers)
    if tables is not None:
        parts.append(tables)
    parts.append(_pairs("query engine", flat(state.engine)))
    if state.rejected:
        rows = sorted(state.rejected.items(), key=lambda entry: -entry[1])
        parts.append(_table("refused records", ("reason", "records"), rows))
    parts.append(_pairs("http", state.http))
    return Group(*parts)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of mappings as dotted names and values."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _headline(state: Status, readiness: Readiness) -> Text:
    text = Text("ready" if readiness.ready else "not ready", "bold green" if readiness.ready else "bold red")
    text.append(f" · version {state.version}", "default")
    if not state.log.get("reachable", True):
        text.append(f" · the log does not answer: {state.log.get('fault')}", "bold yellow")
    elif state.log.get("lag_records"):
        text.append(f" · {shown(state.log['lag_ms'])} ms behind the log", "default")
    for why in (*readiness.why, *_rebuilds(state.workers)):
        text.append(f"\n  {why}", "default")
    return text


def _rebuilds(workers: Mapping[str, Any]) -> list[str]:
    """What a running rebuild says of itself; every worker passes it on."""
    found = next((worker["rebuild"] for worker in workers.values() if worker.get("rebuild")), None)
    if found is None:
        return []
    left_s = found.get("remaining_s")
    left = "" if left_s is None else f", about {left_s:.0f} s left"
    return [
        f"rebuilds {found['view']}: {found['doing']}, {found['records']:,} of {found['records_total']:,} "
        f"records{left}"
    ]


def _log(log: Mapping[str, Any]) -> Table:
    topics = log.get("topics", {})
    names = ("end", "applied", "committed", "lag_records", "lag_ms")
    rows = [(topic, *(offsets.get(name) for name in names)) for topic, offsets in topics.items()]
    return _table("log", ("topic", "end", "applied", "committed", "lag (records)", "lag (ms)"), rows)


def _views(scopes: Mapping[str, Any], workers: Mapping[str, Any]) -> Table | None:
    """How far each view is behind what it is made from; all views of a scope are folded together."""
    names: dict[tuple[str, str], None] = {}
    for worker in workers.values():
        for scope, views in worker.get("views", {}).items():
            names.update(dict.fromkeys((scope, view) for view in views))
    rows = [
        (view, scope, scopes.get(scope, {}).get("lag_records"), scopes.get(scope, {}).get("lag_ms"))
        for scope, view in names
    ]
    return _table("views", ("view", "scope", "behind (records)", "behind (ms)"), rows) if rows else None


def _retention(warnings: Sequence[Mapping[str, Any]]) -> Table:
    rows = [(each["topic"], each["partition"], each["lost"], each["why"]) for each in warnings]
    return _table("retention", ("topic", "partition", "lost", "why"), rows)


def _workers(workers: Mapping[str, Any]) -> Table:
    columns = (
        "worker", "pid", "partitions", "restoring", "events", "duplicates", "late", "parked",
        "not checkpointed (KiB)", "flush (ms)", "checkpoint (ms)", "memory (MiB)",
    )  # fmt: skip
    return _table("workers", columns, [_worker(name, worker) for name, worker in workers.items()])


def _worker(name: str, worker: Mapping[str, Any]) -> Sequence[Any]:
    partitions, shards = worker.get("partitions", {}), worker.get("shards", {})
    memory, unsaved = worker.get("memory_bytes_max"), _sum(partitions, "bytes_uncheckpointed")
    return (
        name,
        str(worker.get("pid", "–")),
        len(partitions),
        len(worker.get("restoring", {})),
        _sum(shards, "events"),
        _sum(shards, "duplicates"),
        _sum(shards, "late"),
        _sum(shards, "parked"),
        None if unsaved is None else unsaved // KIB,
        worker.get("flush_ms"),
        worker.get("checkpoint_ms"),
        None if memory is None else memory // MIB,
    )


def _tables(workers: Mapping[str, Any]) -> Table | None:
    """Sizes of tables, where the workers report them."""
    rows = [
        (worker, name, size["rows"], _mib(size["bytes"]), "about" if size["estimated"] else "counted")
        for worker, status in workers.items()
        for name, size in status.get("tables", {}).items()
    ]
    return _table("tables", ("worker", "table", "rows", "MiB", "how"), rows) if rows else None


def _mib(size_bytes: int) -> float:
    """To the kilobyte."""
    return round(size_bytes / MIB, 3)


def _sum(entries: Mapping[str, Mapping[str, Any]], name: str) -> int | None:
    values = [entry[name] for entry in entries.values() if name in entry]
    return sum(values) if values else None


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in values.items():
        table.add_row(name, shown(value))
    return table


def _table(title: str, columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(value) for value in row))
    return table
