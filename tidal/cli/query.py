"""`tidal query`: a ranked page, or two cohorts beside each other, from a running queryd, as a table."""

from __future__ import annotations

from typing import Annotated

import typer

from queryd.reply import QueryReply, QueryResult
from tidal.cli.comparison_view import print_comparison
from tidal.cli.connection import DataOption, HttpOption, KeyOption, connect
from tidal.cli.failure import UsageError
from tidal.cli.output import print_json, print_table, say, shown
from tidal.cli.times import parse_time_ms

EXAMPLE = (
    "Example:  [bold]tidal query 'RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 "
    "WINDOW 24h LIMIT 25'[/bold]\n\n"
    "[bold]tidal query --compare locale:US 'NOT locale:US' --signal like --window 7d[/bold]"
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("query", epilog=EXAMPLE)(query)


def query(
    text: Annotated[
        str | None, typer.Argument(help="The query, for example 'RETRIEVE items USING PROFILE trending'.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the plan, with estimates; run nothing.")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Run it; show each stage and every term of each score.")
    ] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare", metavar="A B", help="Instead of a query: items by lift of cohort A over B."
        ),
    ] = None,
    signal: Annotated[
        str | None, typer.Option("--signal", help="With --compare: whose events; else those that trend.")
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", help="With --compare: 1h, 24h (the default), 7d, 30d, all_time.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="With --compare: as of a past time, such as 2h."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="With --compare: how many items.")
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option("--min-count", min=1, help="With --compare: leave out items with fewer events."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The reply as JSON.")] = False,
    http: HttpOption = None,
    data: DataOption = None,
    key: KeyOption = None,
) -> None:
    """Run a query against a running queryd, or compare two cohorts."""
    options = {"signal": signal, "window": window, "at": at, "limit": limit, "min_count": min_count}
    _check_usage(text, compare, explain or analyze, [name for name, value in options.items() if value])
    with connect(http, data, key) as client:
        if compare is not None:
            at_ms = parse_time_ms(at, "--at")
            found = client.compare_cohorts(
                *compare, signal, window, at=at_ms, limit=limit, min_count=min_count
            )
            print_json(found) if json else print_comparison(found)
            return
        reply = client.query(_prefix(explain, analyze) + (text or ""))
    if json:
        print_json(reply)
        return
    for warning in reply.warnings:
        say(f"warning: {warning}")
    for cut in reply.degraded:
        say(f"degraded: {cut.stage}: {cut.why}")
    _print_explanation(reply)
    _print_page(reply)


def _check_usage(
    text: str | None, compare: tuple[str, str] | None, explained: bool, of_comparison: list[str]
) -> None:
    """Raises UsageError: neither or both of a query and a comparison, or options of the other one."""
    if compare is None:
        if text is None:
            raise UsageError("Missing argument 'text'.", where="tidal query", do="see `tidal query --help`")
        if of_comparison:
            option = of_comparison[0].replace("_", "-")
            raise UsageError(
                f"--{option} belongs to --compare",
                where="tidal query",
                do="write it into the query as a clause",
            )
    elif text is not None or explained:
        raise UsageError(
            "--compare stands instead of a query and is not explained",
            where="tidal query",
            do="tidal query --compare locale:US locale:DE",
        )


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
    counted = f"{reply.estimator} ± {reply.error_bound:.1%}" if reply.error_bound else reply.estimator
    say(
        f"{len(reply.results)} of about {reply.total_estimate:,} · {counted} · "
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
