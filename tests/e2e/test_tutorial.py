"""Every block of the pages that can be typed along, in order, as a reader would: only the ports are others.

What needs a download (the section on real data) is left to the importers' own tests.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.test_up import ROOT, Site, environment

PAGES = ("tutorial", "cohorts")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RANKED = re.compile(r"│ +(\d+) │ (\S+) +│")
START = re.compile(r"^tidal up --data (\S+) --schema (\S+)$", re.MULTILINE)
NOT_HERE = re.compile(r"^(make setup|export PATH=.*)$", re.MULTILINE)
DOWNLOADS = ("movielens", "taobao", "hackernews")
REFUSED = ("# is refused", "is refused: its line")
"""Comments at commands that are shown to fail."""
BLOCK_S = 240.0


class Block(NamedTuple):
    """A fenced block: its language, "" for what the block before it prints."""

    language: str
    text: str


class Reader:
    """Somebody who follows the page, in a folder and on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site: Site | None = None
        self._ports = {"8080": str(_free_port()), "9092": str(_free_port())}
        (folder / "bin").mkdir()
        for name in ("tidal", "python3"):
            program = folder / "bin" / name
            module = " -m tidal" if name == "tidal" else ""
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
            program.chmod(0o755)

    def run(self, block: Block) -> str:
        """What the block prints. Asserts that it ends well, unless it says that it shows a refusal."""
        text = self._here(block.text)
        start = START.search(text)
        if start is not None:
            text = text[: start.start()]
        command = (
            [sys.executable, "-c", text] if block.language == "python" else ["bash", "-c", f"set -e\n{text}"]
        )
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=BLOCK_S,
            check=False,
            cwd=self.folder,
            env=environment() | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
        )
        said = f"{text}\n{ended.stdout}\n{ended.stderr}"
        shows_refusal = any(comment in block.text for comment in REFUSED)
        assert shows_refusal or ended.returncode == 0, said
        assert "Traceback" not in said, said
        assert '"title":"' not in ended.stdout or '"status":4' not in ended.stdout, said
        if start is not None:
            self._start(start[1], start[2])
        return ended.stdout

    def _start(self, data: str, schema: str) -> None:
        options = ("--schema", schema, "--http", self._at("8080"), "--log", self._at("9092"))
        self.site = Site(self.folder / data, *options)
        self.site.ready()

    def _here(self, text: str) -> str:
        for port in self._ports:
            text = text.replace(f"127.0.0.1:{port}", self._at(port))
        return NOT_HERE.sub("", text)

    def _at(self, port: str) -> str:
        return f"127.0.0.1:{self._ports[port]}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    following = Reader(tmp_path)
    try:
        yield following
    finally:
        if following.site is not None:
            following.site.end()
            following.site.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str, reader: Reader) -> None:
    printed = ""
    for language, text in FENCE.findall((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")):
        if any(name in text for name in DOWNLOADS):
            continue
        if language:
            printed = reader.run(Block(language, text))
        else:
            assert set(RANKED.findall(text)) <= set(RANKED.findall(printed)), printed
    assert reader.site is not None
    killed = "kill" in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert not killed or "is ready again" in reader.site.said()
