"""One call erases a user from a running site: from every table, every file and every restore."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.ids import entity_id
from tests.e2e.test_up import PATIENCE_S, TIDAL, environment, until

VICTIM = "victim-7f3a91c2-ada"
OTHERS = ["other-bob", "other-cleo"]
ITEMS = [f"film-{number}" for number in range(6)]
HISTORY = ("tidal.signals@", "tidal.signals.by-item@", "tidal.dead-letter@")
COMPACTION_S = 120.0
SETTINGS = {
    "TIDAL_TOPICS_PARTITIONS": "2",
    "TIDAL_TOPICS_COMPACTION_LAG_MS_MAX": "4000",
    "TIDAL_WORKER_WIPE_INTERVAL_S": "1",
    "TIDAL_WORKER_FEED_KEEP_S": "1",
}


class Site:
    """`tidal up` with an impatient log and worker."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._said = folder / "up.out"
        self.start()

    def start(self) -> None:
        (self.data / "endpoints.json").unlink(missing_ok=True)
        with self._said.open("ab") as output:
            self._process = subprocess.Popen(
                [*TIDAL, "up", "--data", str(self.data), "--http", "127.0.0.1:0", "--log", "127.0.0.1:0"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment(), **SETTINGS},
                cwd=self.data.parent,
            )
        until((self.data / "endpoints.json").exists, PATIENCE_S, self._said.read_text)
        self.url = self.endpoints()["http"]

    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        return found

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.loads(reply.read())

    def found(self, path: str) -> Any:
        """The reply, None for a 404 and while queryd is away."""
        try:
            return self.call("GET", path)
        except (urllib.error.URLError, OSError):
            return None

    def state(self, erasure: str) -> str:
        report = self.found(f"/v1/erasures/{erasure}")
        return "" if report is None else report["state"]

    def liked(self, user: str) -> list[str]:
        found = self.found(f"/v1/users/{user}/state?state=liked")
        return [] if found is None else sorted(found["states"]["liked"]["items"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    running = Site(tmp_path)
    yield running
    running.stop()


def _load(site: Site) -> None:
    for number, item in enumerate(ITEMS[:-1]):  # the last one's record never comes: its events wait
        site.call("PUT", f"/v1/items/{item}", {"title": item, "creator": f"maker-{number % 2}"})
    for user in (VICTIM, *OTHERS):
        site.call("PUT", f"/v1/users/{user}", {"locale": "US", "age": 33})
        site.call("PUT", f"/v1/relationships/follows/{user}/maker-0", {})
    site.call("PUT", f"/v1/relationships/follows/{OTHERS[0]}/{VICTIM}", {})
    events = [
        {"kind": kind, "item": item, "user": user}
        for user in (VICTIM, *OTHERS)
        for item in ITEMS
        for kind in ("view", "like")
    ]
    site.call("POST", "/v1/signals", events)
    until(lambda: all(len(site.liked(user)) == len(ITEMS) for user in (VICTIM, *OTHERS)), PATIENCE_S)


def _traces(site: Site, *, log: bool) -> dict[str, int]:
    """Files with the victim's id or EntityId, either way round: of compacted topics, or outside the log."""
    number = entity_id(VICTIM)
    wanted = [VICTIM.encode(), number.to_bytes(8, "big"), number.to_bytes(8, "little")]
    found = {}
    for path in site.data.rglob("*"):
        place = str(path.relative_to(site.data))
        history = any(topic in place for topic in HISTORY)
        if history or place.startswith("log/") != log or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # a file of a database that goes on
            continue
        if hits := sum(content.count(trace) for trace in wanted):
            found[place] = hits
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_deleted_user_is_nowhere(site: Site) -> None:
    _load(site)
    assert any("/db/" in place for place in _traces(site, log=False))
    assert any("changelog" in place for place in _traces(site, log=True))

    reply = site.call("DELETE", f"/v1/users/{VICTIM}")
    os.kill(site.endpoints()["pids"]["worker-0"], signal.SIGKILL)  # wherever the erasure is by now
    erasure = reply["erasure"]
    until(
        lambda: site.state(erasure) == "done", PATIENCE_S, lambda: str(site.found(f"/v1/erasures/{erasure}"))
    )

    report = site.call("GET", f"/v1/erasures/{erasure}")
    assert VICTIM not in json.dumps(report)
    assert {"users", "user_state", "user_ids", "dedup", "edges", "relationships"} <= report["rows"].keys()
    assert report["parts"] == {"erased": 6, "wiped": 6, "of": 6}
    assert _traces(site, log=False) == {}
    assert site.found(f"/v1/users/{VICTIM}") is None
    assert site.liked(VICTIM) == []
    assert site.call("GET", "/v1/relationships/follows/maker-0?direction=in")["total"] == len(OTHERS)
    for user in OTHERS:
        assert len(site.liked(user)) == len(ITEMS)
        assert site.call("GET", f"/v1/users/{user}")["age"] == 33

    until(lambda: _traces(site, log=True) == {}, COMPACTION_S, lambda: str(_traces(site, log=True)))

    site.stop()
    shutil.rmtree(site.data / "workers")
    site.start()
    until(lambda: all(len(site.liked(user)) == len(ITEMS) for user in OTHERS), PATIENCE_S)
    assert site.found(f"/v1/users/{VICTIM}") is None
    assert site.liked(VICTIM) == []
    assert _traces(site, log=False) == {}

    site.call("POST", "/v1/signals", [{"kind": "like", "item": ITEMS[0], "user": VICTIM}])
    until(lambda: site.liked(VICTIM) == [ITEMS[0]], PATIENCE_S)  # somebody new
