"""`tidal query`: a ranked page from a running queryd, as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from queryd.reply import QueryReply, QueryResult
from tidal.cli.connection import DataOption, HttpOption, KeyOption, connect
from tidal.cli.output import print_json, print_table, say, shown

EXAMPLE = (
    "Example:  [bold]tidal query 'RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 "
    "WINDOW 24h LIMIT 25'[/bold]"
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("query", epilog=EXAMPLE)(query)


def query(
    text: Annotated[
        str, typer.Argument(help="The query, for example 'RETRIEVE items USING PROFILE trending'.")
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the plan, with estimates; run nothing.")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Run it; show each stage and every term of each score.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The reply as JSON.")] = False,
    http: HttpOption = None,
    data: DataOption = None,
    key: KeyOption = None,
) -> None:
    """Run a query against a running queryd."""
    with connect(http, data, key) as client:
        reply = client.query(_prefix(explain, analyze) + text)
    if json:
        print_json(reply)
        return
    for warning in reply.warnings:
        say(f"warning: {warning}")
    for cut in reply.degraded:
        say(f"degraded: {cut.stage}: {cut.why}")
    _print_explanation(reply)
    _print_page(reply)


def _prefix(explain: bool, analyze: bool) -> str:
    if analyze:
        return "EXPLAIN ANALYZE "
    return "EXPLAIN " if explain else ""


def _print_page(reply: QueryReply) -> None:
    if not reply.results and reply.explain is not None:
        return
    field_names = list(dict.fromkeys(name for result in reply.results for name in (result.fields or {})))
    columns = ["rank", "id", "score", *field_names]
    with_terms = any(result.terms for result in reply.results)
    columns += ["terms"] if with_terms else []
    rows = [_row(result, field_names, with_terms) for result in reply.results]
    print_table("", columns, rows)
    freshness = "–" if reply.freshness_ms is None else f"{reply.freshness_ms:.0f} ms"
    say(
        f"{len(reply.results)} of about {reply.total_estimate:,} · {reply.estimator} · "
        f"fresh to {freshness} · {reply.took_us:,} µs · request {reply.request_id}"
    )
    if reply.cursor is not None:
        say(f'next page: CURSOR "{reply.cursor}"')


def _row(result: QueryResult, field_names: list[str], with_terms: bool) -> list[object]:
    mark = " *" if result.exploration else ""
    row: list[object] = [result.rank, result.id + mark, result.score]
    row += [(result.fields or {}).get(name) for name in field_names]
    if with_terms:
        terms = result.terms or []
        row.append(
            "\n".join(f"{t.term} {shown(t.value)} × {t.weight:g} = {shown(t.contribution)}" for t in terms)
        )
    return row


def _print_explanation(reply: QueryReply) -> None:
    if reply.explain is None:
        return
    for title, entries in (("plan", reply.explain.plan), ("stages", reply.explain.stages)):
        if not entries:
            continue
        mappings = [entry if isinstance(entry, dict) else {"step": entry} for entry in entries]
        columns = list(dict.fromkeys(name for entry in mappings for name in entry))
        print_table(title, columns, [[entry.get(name) for name in columns] for entry in mappings])
