"""The log goes away and comes back on the same address: what writes refuses in time, what reads goes on.

It is away for some seconds; with TIDAL_CRASH_FULL set also for a minute, beyond the workers' session.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import pytest

from schemas.settings import ProducerSettings, TopicSettings
from streams.admin import init_topics
from streams.errors import DeliveryError, QueueFullError, StreamError
from streams.producer import Producer
from streams.topics import all_topics
from tests.brokers import Broker
from tests.crash.site import Site
from tests.waiting import until

PARTITIONS = 2
FULL_ONLY = pytest.mark.skipif("TIDAL_CRASH_FULL" not in os.environ, reason="takes minutes: set it to run")
WAIT_S = 90.0
NOTICED_S = 20.0
WORKER = "worker-0"
SMALL = ProducerSettings(buffer_bytes_max=200_000, block_timeout_s=0.5, delivery_timeout_ms=120_000)


@pytest.fixture(autouse=True)
def _can_be_taken_away(broker: Broker) -> None:
    if not broker.can_restart:
        pytest.skip("this broker cannot be taken away")


class Daemon:
    """queryd over HTTP; a refusal is an answer too."""

    def __init__(self, site: Site) -> None:
        self._url = f"http://{site.http}"

    def send(self, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data, {"Content-Type": "application/json"} if data else {}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, json.loads(reply.read()), dict(reply.headers)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()), dict(error.headers)

    def views(self, item: str) -> int:
        status, ledger, _ = self.send(f"/v1/items/{item}/signals?signal=view")
        return int(ledger["all_time"]["count"]) if status == 200 else 0

    def page(self) -> dict[str, Any]:
        status, page, _ = self.send(
            "/v1/query", {"query": "RETRIEVE items USING PROFILE trending WINDOW all_time LIMIT 5"}
        )
        assert status == 200, page
        found: dict[str, Any] = page
        return found


def _view(number: int, item: str) -> dict[str, Any]:
    return {"kind": "view", "item": item, "user": f"u{number}", "ts": int(time.time() * 1000)}


@pytest.mark.parametrize("away_s", [4.0, pytest.param(60.0, marks=FULL_ONLY)])
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_everything_goes_on_by_itself_after_an_outage(site: Site, away_s: float) -> None:
    site.start_worker(WORKER)
    site.start_queryd()
    site.wait_until_queryd_serves()
    daemon = Daemon(site)
    producer = Producer(site.broker.bootstrap, SMALL)
    try:
        for number in range(20):
            producer.publish("view", "before", f"u{number}")
        producer.flush(10)
        until(lambda: daemon.views("before") == 20, lambda: site.tail(WORKER))

        site.broker.kill()
        gone_s = time.monotonic()
        waiting = [producer.publish("view", "during", f"u{number}") for number in range(20)]
        refused = _fill(producer)
        assert "away" in str(refused)
        posts = _post_in_background(daemon)
        page: dict[str, Any] = {"degraded": []}
        noticed = False
        while not noticed or time.monotonic() < gone_s + away_s:
            assert daemon.views("before") == 20
            page = daemon.page()
            assert [result["id"] for result in page["results"]] == ["before"]
            noticed = any(each["stage"] == "log" for each in page["degraded"])
            assert time.monotonic() < gone_s + away_s + NOTICED_S, page
            time.sleep(0.3)
        assert page["freshness_ms"] > 0
        status = daemon.send("/v1/status")[1]
        assert not status["log"]["reachable"]
        assert daemon.send("/livez")[0] == 200

        site.broker.restart()
        assert len({future.result(WAIT_S).offset for future in waiting}) >= 1
        posts.join(WAIT_S)
        until(lambda: daemon.views("during") == 20, lambda: site.tail(WORKER))
        assert daemon.send("/v1/signals", _view(1, "after"))[0] == 202
        until(lambda: daemon.views("after") == 1, lambda: site.tail(WORKER))
        until(lambda: not daemon.page()["degraded"], lambda: str(daemon.page()))
    finally:
        with suppress(DeliveryError):  # after a failure the log may be away still
            producer.close()
    assert site.revive() == []


def _fill(producer: Producer) -> StreamError:
    """Publishes until the buffer is full; the refusal."""
    for number in range(100_000):
        try:
            producer.publish("view", f"filler{number}", "u")
        except QueueFullError as error:
            return error
    raise AssertionError("the producer never refused")


def _post_in_background(daemon: Daemon) -> threading.Thread:
    def post() -> None:
        status, _, _ = daemon.send("/v1/signals", _view(0, "posted"))
        assert status in (202, 503)

    thread = threading.Thread(target=post)
    thread.start()
    return thread


@pytest.mark.timeout(120)
def test_a_producer_without_the_log_waits_then_refuses_then_goes_on(broker: Broker) -> None:
    """Bounded: by bytes (the caller is refused) and by time (the future fails); both say what to do."""
    init_topics(broker.bootstrap, all_topics(TopicSettings(partitions=PARTITIONS)))
    settings = ProducerSettings(delivery_timeout_ms=1_500, buffer_bytes_max=50_000, block_timeout_s=0.2)
    with Producer(broker.bootstrap, settings) as producer:
        producer.publish("view", "i", "u").result(20)
        broker.kill()
        first = producer.publish("view", "i", "u2")
        assert "away or slower" in str(_fill(producer))
        assert producer.stats().buffered_bytes <= settings.buffer_bytes_max
        with pytest.raises(DeliveryError, match="publish again"):
            first.result(20)
        broker.restart()
        until(lambda: _is_taken(producer), lambda: str(producer.stats()))


def _is_taken(producer: Producer) -> bool:
    try:
        producer.publish("view", "i", "u3").result(20)
    except DeliveryError:
        return False
    return True
