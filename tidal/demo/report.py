"""What the demo prints: each query with the top of its page, and whether the recount is equal."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidal.demo.recount import Page
from tidal.demo.reference import ReferenceQuery

SHOWN_ROWS: Final = 5
SHOWN_DIFFERENCES: Final = 10


def show_answer(
    console: Console, query: ReferenceQuery, page: Page, items: dict[str, dict[str, Any]], took_us: int
) -> None:
    """The query as it was asked, and the first rows of its answer."""
    console.print()
    console.print(f"[bold]{escape(query.text)}[/bold]")
    table = Table(show_edge=False, pad_edge=False)
    for column, justify in (("#", "right"), ("item", "left"), ("title", "left"), ("creator", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    table.add_column("score", justify="right")
    for rank, (id_, score) in enumerate(page[:SHOWN_ROWS], start=1):
        item = items.get(id_, {})
        table.add_row(str(rank), id_, escape(item.get("title", "")), item.get("creator", ""), f"{score:.6g}")
    console.print(table)
    rest = len(page) - SHOWN_ROWS
    more = f"… and {rest} more, " if rest > 0 else ""
    console.print(f"{more}answered in {took_us / 1000:.1f} ms", style="dim")


def show_verdict(console: Console, query: ReferenceQuery, found: list[str], rows: int) -> None:
    """Whether the recount gave the same page."""
    if not found:
        console.print(f"recount: [green]equal[/green] ({rows} rows)")
        return
    console.print(f"recount: [red]different[/red] – {escape(query.name)}")
    for line in found[:SHOWN_DIFFERENCES]:
        console.print(f"  {escape(line)}")
    if len(found) > SHOWN_DIFFERENCES:
        console.print(f"  … and {len(found) - SHOWN_DIFFERENCES} more")
