"""A whole `tidal up` on a log that asks for a user and speaks TLS: settings alone make it so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.embedded.users import user_line
from tests import certificates
from tidal.client import Client
from tidal.client_errors import RefusedError

ROOT = Path(__file__).resolve().parents[2]
TIDAL = (sys.executable, "-m", "tidal")
PASSWORD = "correct horse battery"
PATIENCE_S = 90.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(certificates.why_not() is not None, reason=str(certificates.why_not())),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    made = certificates.make_certificates(tmp_path / "certificates")
    (tmp_path / "users").write_text(user_line("site", PASSWORD) + "\n")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TIDAL_")},
        "PYTHONPATH": str(ROOT),
        "TIDAL_LOG_CERTIFICATE_FILE": str(made.certificate),
        "TIDAL_LOG_PRIVATE_KEY_FILE": str(made.private_key),
        "TIDAL_LOG_USERS_FILE": str(tmp_path / "users"),
        "TIDAL_LOG_ADVERTISE": "localhost",
        "TIDAL_BROKERS_SECURITY": "sasl_ssl",
        "TIDAL_BROKERS_USER": "site",
        "TIDAL_BROKERS_PASSWORD_FILE": str(tmp_path / "password"),
        "TIDAL_BROKERS_CA_FILE": str(made.authority),
    }


@pytest.fixture
def site(tmp_path: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Where it is reached: `http` and `brokers`."""
    data = tmp_path / "data"
    output = (tmp_path / "up.out").open("wb")
    command = [*TIDAL, "up", "--data", str(data), "--http", "127.0.0.1:0", "--log", "0.0.0.0:0"]
    process = subprocess.Popen(
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (data / "endpoints.json").exists():
            assert process.poll() is None, (tmp_path / "up.out").read_text()[-2_000:]
            assert time.monotonic() < deadline_s, (tmp_path / "up.out").read_text()[-2_000:]
            time.sleep(0.1)
        yield json.loads((data / "endpoints.json").read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        output.close()


def run(environment: dict[str, str], folder: Path, *arguments: str, lines: str = "") -> str:
    done = subprocess.run(
        [*TIDAL, *arguments], env=environment, cwd=folder, input=lines, capture_output=True, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_everything_runs_on_a_secured_log(
    site: dict[str, str], environment: dict[str, str], tmp_path: Path
) -> None:
    assert site["brokers"].startswith("localhost:")
    client = Client(site["http"])
    client.put("item", "item_1", {"title": "the tide"})
    event = {"kind": "view", "item": "item_1", "user": "user_1"}
    published = run(
        environment, tmp_path, "publish", "--brokers", site["brokers"], lines=json.dumps(event) + "\n"
    )
    assert "1" in published
    deadline_s = time.monotonic() + PATIENCE_S
    while _views(client) < 1:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    assert "tidal.signals" in run(environment, tmp_path, "status", "--http", site["http"])
    # And nobody comes in without.
    stranger = {name: value for name, value in environment.items() if not name.startswith("TIDAL_BROKERS_")}
    refused = run(stranger, tmp_path, "topics", "check", "--brokers", site["brokers"])
    assert "error: no answer from the log" in refused


def _views(client: Client) -> int:
    try:
        return client.ledger("item", "item_1", "view").all_time.count
    except RefusedError:
        return 0
