"""`tidal up` as a user runs it: one site for the whole file, then a few of their own for starts and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from confluent_kafka import Producer as KafkaProducer

from tidal.client import Client
from tidal.client_errors import RefusedError

Value = TypeVar("Value")
ROOT = Path(__file__).resolve().parents[2]
TIDAL = (sys.executable, "-m", "tidal")
PATIENCE_S = 60.0
VISIBLE_S = 20.0


SCHEMA = "name: my_site\nsignals: {purr: {category: positive, windows: [24h, all_time]}}\n"


class Site:
    """A `tidal up` on a folder of its own, on free ports."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.output = data.with_name(data.name + ".out")
        self._file = self.output.open("wb")
        command = [
            *TIDAL,
            "up",
            "--data",
            str(data),
            "--http",
            "127.0.0.1:0",
            "--log",
            "127.0.0.1:0",
            *options,
        ]
        self.process = subprocess.Popen(
            command,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(),
            cwd=data.parent,
            start_new_session=True,
        )

    def ready(self) -> dict[str, Any]:
        """Waits for endpoints.json and returns what is in it."""
        until(lambda: self.endpoints() is not None or self.process.poll() is not None, PATIENCE_S, self.said)
        endpoints = self.endpoints()
        assert endpoints is not None, self.said()
        return endpoints

    def endpoints(self) -> dict[str, Any] | None:
        """What endpoints.json holds now, if its processes live."""
        try:
            found: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        except FileNotFoundError:
            return None
        return found if any(alive(pid) for pid in found["pids"].values()) else None

    def said(self) -> str:
        """Everything that it printed."""
        return self.output.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Makes sure that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        self._file.close()


def environment() -> dict[str, str]:
    """The children's: this checkout, and no settings of whoever runs the tests.

    A killed worker's partitions stand still for a session, which a test need not wait out in full.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")}
    return {**kept, "PYTHONPATH": str(ROOT), "TIDAL_WORKER_SESSION_TIMEOUT_S": "3"}


def until(condition: Callable[[], bool], patience_s: float, explain: Callable[[], str] = str) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


def command(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs one `tidal` command to its end."""
    return subprocess.run(
        [*TIDAL, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment(),
        cwd=cwd,
    )


def alive(pid: int) -> bool:
    """Whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One running site."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "site.yaml").write_text(SCHEMA)
    running = Site(folder / "data", "--schema", "site.yaml")
    try:
        running.ready()
        yield running
        if running.process.poll() is None:
            pids = running.ready()["pids"].values()
            assert running.end() == 0, running.said()
            assert not any(alive(pid) for pid in pids)
            assert running.endpoints() is None
    finally:
        running.close()


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """A client of the site."""
    with Client(site.ready()["http"]) as connected:
        yield connected


def events(items: Sequence[str], user: str, kind: str = "view") -> list[dict[str, Any]]:
    """One event for each item."""
    return [{"kind": kind, "item": item, "user": user} for item in items]


def test_it_says_when_it_is_ready_and_where(site: Site) -> None:
    endpoints = site.ready()
    assert set(endpoints) == {"http", "brokers", "pids"}
    assert set(endpoints["pids"]) == {"log", "worker-0", "queryd-0"}
    assert "Tidal is ready after" in site.said()
    assert endpoints["http"] in site.said()
    assert endpoints["brokers"] in site.said()


def test_what_is_published_is_ranked(client: Client) -> None:
    for user, locale in (("u1", "US"), ("u2", "CA")):
        client.put("user", user, {"locale": locale, "age": 21})
    written = client.put_many("item", [{"id": item, "title": item, "creator": "c1"} for item in ("a", "b")])
    assert [one.id for one in written.written] == ["a", "b"]
    until(lambda: _stamped(client, "u1", "locale:US") and _stamped(client, "u2", "locale:CA"), VISIBLE_S)
    client.publish(events(["a"], "u1"))
    acknowledged = client.publish([*events(["b"], "u1"), *events(["b"], "u2")])
    page = client.query(
        f'RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 5 AFTER "{acknowledged.position}"'
    )
    assert [result.id for result in page.results] == ["b", "a"]
    ledger = client.ledger("item", "b", "view", window="24h")
    assert ledger.all_time.count == 2
    assert ledger.windows["24h"].count == 2
    assert sorted(client.user_state("u1", "seen").states["seen"].items) == ["a", "b"]


def test_the_schema_reaches_every_process(client: Client) -> None:
    assert client.schema()["name"] == "my_site"
    acknowledged = client.publish({"kind": "purr", "item": "cat", "user": "u1"})
    client.query(f'RETRIEVE items USING PROFILE trending AFTER "{acknowledged.position}"')
    assert client.ledger("item", "cat", "purr").all_time.count == 1


def test_a_cohort_counts_only_its_own(client: Client) -> None:
    acknowledged = client.publish(events(["a"], "u2", "like"))
    client.query(f'RETRIEVE items USING PROFILE trending AFTER "{acknowledged.position}"')
    assert client.ledger("item", "a", "like", cohort="locale:CA").all_time.count == 1
    assert client.ledger("item", "a", "like", cohort="locale:US").all_time.count == 0


def test_a_patch_sees_the_write_before_it(client: Client) -> None:
    client.put("item", "p", {"title": "first", "category": "music"})
    for number in range(5):
        client.patch("item", "p", {"title": f"title {number}", f"field_{number}": number})
    until(lambda: client.get("item", "p").get("field_4") == 4, VISIBLE_S)
    record = client.get("item", "p")
    assert record["category"] == "music"
    assert [record[f"field_{number}"] for number in range(5)] == list(range(5))


def test_a_deleted_item_is_gone(client: Client) -> None:
    client.put("item", "d", {"title": "short-lived"})
    until(lambda: _exists(client, "item", "d"), VISIBLE_S)
    client.delete("item", "d")
    until(lambda: not _exists(client, "item", "d"), VISIBLE_S)


def test_edges_are_written_and_read(client: Client) -> None:
    client.relate("follows", "u1", "c1", weight=0.5)
    until(lambda: bool(client.relationships("follows", "u1").edges), VISIBLE_S)
    edge = client.relationships("follows", "u1").edges[0]
    assert (edge.source, edge.to, edge.weight) == ("u1", "c1", 0.5)
    client.unrelate("follows", "u1", "c1")
    until(lambda: not client.relationships("follows", "u1").edges, VISIBLE_S)


def test_a_block_hides_on_the_next_query_and_an_unblock_shows(client: Client) -> None:
    client.put_many("item", [{"id": f"h{n}", "creator": f"hc{n % 2}"} for n in range(4)])
    acknowledged = client.publish(events([f"h{n}" for n in range(4)], "u9"))
    page = "RETRIEVE items FOR USER @u9 USING PROFILE trending FILTER seen LIMIT 10"
    shown = client.query(f'{page} AFTER "{acknowledged.position}"')
    until(lambda: client.get("item", "h3")["creator"] == "hc1", VISIBLE_S)
    assert {result.id for result in shown.results} == {"h0", "h1", "h2", "h3"}
    for hiding in ("blocks", "mutes"):
        for _ in range(5):
            client.relate(hiding, "u9", "hc1")
            assert {result.id for result in client.query(page).results} == {"h0", "h2"}
            client.unrelate(hiding, "u9", "hc1")
            assert len(client.query(page).results) == 4


def test_the_graph_is_read(client: Client) -> None:
    for source, target in (("g1", "g2"), ("g1", "g3"), ("g2", "g4"), ("g3", "g4"), ("g4", "g1")):
        client.relate("follows", source, target)
    client.publish([*events(["s1", "s2"], "g1", "like"), *events(["s2", "s3"], "g2", "like")])
    until(lambda: client.relationships("follows", "g4", direction="in", limit=0).total == 2, VISIBLE_S)
    until(lambda: bool(client.relationships("follows", "g4").edges), VISIBLE_S)
    reached = client.two_hops("g1", "follows").reached
    assert [(each.id, each.paths) for each in reached] == [("g4", 2)]
    until(lambda: bool(client.similar_users("g1", "liked").users), VISIBLE_S)
    [similar] = client.similar_users("g1").users
    assert (similar.id, similar.shared, similar.score) == ("g2", 1, 0.5)
    until(lambda: len(client.user_relationships("g1").edges) == 4, VISIBLE_S)
    with pytest.raises(RefusedError):
        client.relationship("follows", "g1", "nobody")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("RETRIEVE items USING PROFILE trendin", "trending"),
        ("RETRIEV items", "RETRIEVE"),
        ("RETRIEVE items COHORT local:US", "locale"),
        ("RETRIEVE items LIMIT 501", "max_query_limit"),
        ('RETRIEVE items CURSOR "forged"', "cursor"),
        ('RETRIEVE items AFTER "forged"', "position"),
    ],
)
def test_bad_queries_are_explained(client: Client, query: str, words: str) -> None:
    with pytest.raises(RefusedError) as raised:
        client.query(query)
    assert raised.value.problem.status in (400, 422)
    assert words in str(raised.value)


def test_refused_records_of_the_log_are_counted_by_reason(site: Site, client: Client) -> None:
    producer = KafkaProducer({"bootstrap.servers": site.ready()["brokers"]})
    for value in (b'{"kind": "nonsense", "item": "a"}', b"{", b'{"kind": "view", "item": ""}'):
        producer.produce("tidal.signals", key=b"u9", value=value)
    assert producer.flush(PATIENCE_S) == 0
    wanted = {"unknown_kind": 1, "malformed_json": 1, "id_empty": 1}
    until(lambda: client.status().rejected == wanted, VISIBLE_S, lambda: str(client.status().rejected))


def test_status_knows_the_lag(client: Client) -> None:
    until(lambda: client.status().log["lag_records"] == 0, VISIBLE_S, lambda: str(client.status().log))
    status = client.status()
    assert status.ready
    assert status.log["reachable"] is True
    signals = status.log["topics"]["tidal.signals"]
    assert signals["end"] == signals["applied"] > 0
    until(lambda: _committed(client) >= signals["applied"], VISIBLE_S, lambda: str(client.status().log))


def test_commands_find_the_site(site: Site) -> None:
    data = ("--data", str(site.data))
    lines = "\n".join(json.dumps(event) for event in events(["a", "b"], "u3")) + "\nnonsense\n"
    published = command("publish", *data, "--json", stdin=lines)
    assert published.returncode == 1, published.stderr
    assert "line 3" in published.stderr
    outcome = json.loads(published.stdout)
    assert (outcome["accepted"], outcome["refused"]) == (2, 1)
    text = f'RETRIEVE items USING PROFILE trending LIMIT 2 AFTER "{outcome["position"]}"'
    table = command("query", text, *data)
    assert table.returncode == 0, table.stderr
    assert "rank" in table.stdout
    analyzed = command("query", text, *data, "--analyze", "--json")
    result = json.loads(analyzed.stdout)["results"][0]
    assert sum(term["contribution"] for term in result["terms"]) == pytest.approx(result["score"])
    plan = command("query", text, *data, "--explain")
    assert plan.returncode == 0
    assert "plan" in plan.stdout
    status = command("status", *data)
    assert status.returncode == 0, status.stderr
    assert "tidal.signals" in status.stdout
    assert command("topics", "check", *data).returncode == 0
    bad = command("query", "RETRIEVE itms", *data)
    assert bad.returncode == 1
    assert bad.stdout == ""


def test_a_second_site_on_the_folder_is_refused(site: Site) -> None:
    refused = command("up", "--data", str(site.data), "--http", "127.0.0.1:0", "--log", "127.0.0.1:0")
    assert refused.returncode == 1
    assert f"process {site.process.pid}" in refused.stderr
    assert site.endpoints() is not None


@pytest.mark.parametrize("name", ["queryd-0", "worker-0", "log"])
def test_a_killed_child_comes_back(site: Site, client: Client, name: str) -> None:
    """And what was acknowledged before is still there after."""
    before = site.ready()
    acknowledged = client.publish(events([f"kill-{name}"], "u4"))
    os.kill(before["pids"][name], signal.SIGKILL)
    until(lambda: f"{name} is ready again" in site.said(), PATIENCE_S, site.said)
    assert f"{name} died (signal SIGKILL)" in site.said()
    after = site.ready()
    assert after["pids"][name] != before["pids"][name]
    assert (after["http"], after["brokers"]) == (before["http"], before["brokers"])
    until(lambda: _count(client, f"kill-{name}", acknowledged.position) == 1, PATIENCE_S)
    until(lambda: client.publish(events([f"again-{name}"], "u4")).accepted == 1, PATIENCE_S)


def _committed(client: Client) -> int:
    return int(client.status().log["topics"]["tidal.signals"]["committed"])


def _stamped(client: Client, user: str, cohort: str) -> bool:
    """Whether events of the user count for the cohort by now; asked with events of a kind of its own."""
    acknowledged = client.publish(events([f"probe-{user}"], user, "share"))
    client.query(f'RETRIEVE items USING PROFILE trending AFTER "{acknowledged.position}"')
    return client.ledger("item", f"probe-{user}", "share", cohort=cohort).all_time.count > 0


def _exists(client: Client, kind: Any, id: str) -> bool:
    try:
        return bool(client.get(kind, id)["id"] == id)
    except RefusedError as error:
        return _expected(error, (404,), otherwise=False)


def _count(client: Client, item: str, position: str) -> int:
    try:
        client.query(f'RETRIEVE items USING PROFILE trending AFTER "{position}"')
        return client.ledger("item", item, "view").all_time.count
    except RefusedError as error:
        return _expected(error, (404, 503, 504), otherwise=-1)


@pytest.mark.slow
def test_the_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """And the folder can be used again at once, with everything in it, until Ctrl-C."""
    running = Site(tmp_path / "data")
    try:
        pids = running.ready()["pids"].values()
        with Client(running.ready()["http"]) as client:
            client.publish(events(["kept"], "u1"))
        running.process.kill()
        running.process.wait(PATIENCE_S)
        until(lambda: not any(alive(pid) for pid in pids), VISIBLE_S)
    finally:
        running.close()
    again = Site(tmp_path / "data")
    try:
        pids = again.ready()["pids"].values()
        with Client(again.ready()["http"]) as client:
            until(lambda: _ledger_count(client, "kept") == 1, VISIBLE_S)
        assert again.end(signal.SIGINT) == 130, again.said()
        assert not any(alive(pid) for pid in pids)
        assert again.endpoints() is None
        assert "killed" not in again.said()
    finally:
        again.close()


def _ledger_count(client: Client, item: str) -> int:
    try:
        return client.ledger("item", item, "view").all_time.count
    except RefusedError as error:
        return _expected(error, (404,), otherwise=0)


def _expected(error: RefusedError, statuses: tuple[int, ...], otherwise: Value) -> Value:
    """The value that stands for a refusal which may come while one waits."""
    if error.problem.status not in statuses:
        raise error
    return otherwise


def test_a_stop_during_the_start(tmp_path: Path) -> None:
    running = Site(tmp_path / "data")
    try:
        until(lambda: (tmp_path / "data" / "logs").exists(), PATIENCE_S)
        assert running.end() == 0, running.said()
        assert running.endpoints() is None
    finally:
        running.close()


def test_a_port_that_is_taken(site: Site, tmp_path: Path) -> None:
    taken = site.ready()["http"].removeprefix("http://")
    refused = command("up", "--data", str(tmp_path / "data"), "--http", taken, "--log", "127.0.0.1:0")
    assert refused.returncode == 1
    assert taken in refused.stderr
    assert "choose another --http" in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_several_workers_and_queryds(tmp_path: Path) -> None:
    running = Site(tmp_path / "data", "--queryds", "2", "--workers", "2")
    try:
        endpoints = running.ready()
        assert set(endpoints["pids"]) == {"log", "worker-0", "worker-1", "queryd-0", "queryd-1"}
        with Client(endpoints["http"]) as client:
            client.publish(events(["shared"], "u1"))
        for _ in range(10):  # each connection may reach another queryd
            with Client(endpoints["http"]) as client:
                until(lambda client=client: _ledger_count(client, "shared") == 1, VISIBLE_S)  # type: ignore[misc]
        assert running.end() == 0, running.said()
    finally:
        running.close()
