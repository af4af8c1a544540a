"""The documentation is true as far as a machine can tell: links, commands, options, targets, routes exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
import yaml

from queryd.language.parse import parse_query
from schemas.loading import load_schema
from tidal.cli.main import build_app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
MAKE_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
SHELL = {"sh", "shell", "bash"}


class Command(NamedTuple):
    """A command line that a page shows."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text}"


def _shell_lines(page: Path) -> Iterator[str]:
    for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in SHELL:
            body = re.sub(r"<<'(\w+)'\n.*?^\1$", "", body, flags=re.MULTILINE | re.DOTALL)
            yield from (line.split("  #")[0].strip() for line in body.splitlines() if line.strip())


@cache
def commands() -> tuple[Command, ...]:
    """Every shell line of every page, and what stands in backticks and begins with tidal, make or python."""
    found = []
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        inline = [text for text in INLINE.findall(prose) if re.match(r"(tidal|make|python -m) ", text)]
        found += [Command(page, line) for line in (*_shell_lines(page), *inline)]
    return tuple(found)


def _starting_with(*words: str) -> list[Command]:
    wanted = re.compile(rf"(?:^|\|\s*|\.venv/bin/){' '.join(words)}\b(.*)")
    return [
        Command(command.page, "".join([" ".join(words), match[1]]).strip())
        for command in commands()
        if (match := wanted.search(command.text))
    ]


@cache
def _application() -> Any:
    return typer.main.get_command(build_app())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name} links to {target}, which has no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [
            (page.parent / link.partition("#")[0]).resolve()
            for link in links
            if "://" not in link and (page.parent / link.partition("#")[0]).exists()
        ]
    unreached = [str(page.relative_to(ROOT)) for page in PAGES if page not in reached]
    assert not unreached, f"no page links to {unreached}"


def test_decisions_are_numbered_once_and_listed_with_their_titles() -> None:
    folder = ROOT / "docs" / "adr"
    pages = sorted(folder.glob("[0-9]*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers), "two decisions have one number"
    index = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    for page in pages:
        heading = page.read_text(encoding="utf-8").splitlines()[0]
        number, _, title = heading.removeprefix("# ").partition(" · ")
        assert number == page.name[:4], f"{page.name} calls itself {number}"
        assert f"* [{number}]({page.name}) {title}" in index, (
            f"{page.name} is not in the index: run scripts/adr-index"
        )


def test_the_pages_show_commands_at_all() -> None:
    assert len(_starting_with("tidal")) > 10
    assert len(_starting_with("make")) > 5


@pytest.mark.parametrize("command", _starting_with("tidal"), ids=str)
def test_every_tidal_command_exists_with_its_options(command: Command) -> None:
    words = shlex.split(command.text.replace("…", ""), comments=True)[1:]
    node = _application()
    while words and (known := getattr(node, "commands", None)):
        if words[0].startswith("-"):
            break
        name = words.pop(0)
        if name.isupper():  # a placeholder, as in `tidal bench NAME`
            return
        assert name in known, f"{command}: there is no `{name}`"
        node = known[name]
    options = {option for parameter in node.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word in {"|", ">", "<", "&&", ";"}:
            break
        if word.startswith("--"):
            assert word.partition("=")[0] in options | {"--help"}, f"{command}: there is no option {word}"


@pytest.mark.parametrize("command", _starting_with("make"), ids=str)
def test_every_make_target_exists(command: Command) -> None:
    targets = set(MAKE_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    for word in command.text.split()[1:]:
        if re.fullmatch(r"[a-z-]+", word):
            assert word in targets, f"{command}: the Makefile has no target {word}"


@pytest.mark.parametrize("command", _starting_with("python", "-m", "benchmarks"), ids=str)
def test_every_benchmark_exists(command: Command) -> None:
    module = re.match(r"python -m (benchmarks(?:\.\w+)?)", command.text)
    assert module is not None
    if module[1] != "benchmarks" and not module[1].endswith(".NAME"):
        assert (ROOT / (module[1].replace(".", "/") + ".py")).is_file(), str(command)


def test_every_query_parses() -> None:
    queries = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        queries += re.findall(r"tidal query '([^']+)'", text)
        queries += re.findall(r"^```\n((?:RETRIEVE|SEARCH) .*?)^```", text, re.M | re.S)
    single = [query for text in queries for query in re.split(r"\n(?=RETRIEVE|SEARCH)", text.strip())]
    assert len(single) > 8
    for query in single:
        if "[" not in query:  # a grammar and not a query
            parse_query(query)


def test_every_schema_that_is_shipped_loads() -> None:
    shipped = [
        path for path in ROOT.glob("*/**/*.yaml") if "schemas" in path.parts and ".venv" not in path.parts
    ]
    assert shipped
    for path in shipped:
        load_schema(path)


def test_every_route_that_is_named_is_served() -> None:
    from queryd.http.routes import all_routes

    served = {re.sub(r"\{[^}]*\}", "*", route.path) for route in all_routes()}
    for page in PAGES:
        for path in re.findall(r"127\.0\.0\.1:8080(/v1/[\w/.:-]+)", page.read_text(encoding="utf-8")):
            assert any(re.fullmatch(re.escape(route).replace(r"\*", "[^/]+"), path) for route in served), path


def test_the_compose_file_uses_commands_and_options_that_exist() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for name in ("topics", "worker", "queryd"):
        words = [str(word) for word in services[name]["command"]]
        command = Command(ROOT / "docker-compose.yml", shlex.join(["tidal", *words]))
        test_every_tidal_command_exists_with_its_options(command)


def test_compose_and_tests_use_the_same_redpanda() -> None:
    from tests.brokers import REDPANDA_IMAGE

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert services["redpanda"]["image"] == REDPANDA_IMAGE
