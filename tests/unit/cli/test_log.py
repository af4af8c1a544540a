"""`tidal log`: what its settings make of a log, and users."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from schemas.settings import Settings, load_settings
from streams.embedded import UsersError
from streams.embedded.metadata import Guard
from streams.embedded.users import read_users, user_line
from streams.topics import BY_ITEM, SIGNALS
from tidal.cli.failure import CommandError, UsageError
from tidal.cli.log import guards_of, log_of
from tidal.cli.log_user import user

PASSWORD = "correct horse battery"


def settings(**sections: dict[str, Any]) -> Settings:
    return load_settings(sections, env={}, toml_path=None)[0]


def test_retention_waits_for_the_workers_by_default() -> None:
    assert guards_of(settings()) == (Guard("tidal", (SIGNALS, BY_ITEM)),)
    assert guards_of(settings(topics={"app": "shop"})) == (Guard("shop", (SIGNALS, BY_ITEM)),)


def test_other_groups_can_be_waited_for_or_none() -> None:
    assert guards_of(settings(log={"guard_groups": ""})) == ()
    named = guards_of(settings(log={"guard_groups": "app, billing,billing"}))
    assert named == (Guard("tidal", (SIGNALS, BY_ITEM)), Guard("billing"))


def test_numbers_reach_the_log(tmp_path: Path) -> None:
    log = log_of(
        tmp_path, settings(log={"listen": "127.0.0.1:0", "segment_bytes": 4096, "guard_dead_after_s": 1.5})
    )
    assert (log.settings.segment_bytes, log.settings.guard_dead_after_ms) == (4096, 1500)


@pytest.mark.parametrize(
    "given, missing",
    [
        ({"certificate_file": "c"}, "log.private_key_file and log.users_file is not set"),
        ({"users_file": "u", "private_key_file": "k"}, "log.certificate_file is not set"),
    ],
)
def test_half_a_security_is_refused(tmp_path: Path, given: dict[str, str], missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        log_of(tmp_path, settings(log=given))


def test_users_from_a_setting(tmp_path: Path) -> None:
    lines = f"{user_line('alice', PASSWORD)} {user_line('bob', PASSWORD)}"
    given = {"certificate_file": "c", "private_key_file": "k", "users": lines}
    log_of(tmp_path, settings(log=given))
    with pytest.raises(UsersError, match=r"log\.users, line 2"):
        log_of(tmp_path, settings(log=given | {"users": lines.replace("bob", "alice")}))


async def test_the_line_of_a_user_replaces_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "users"
    for name, password in (("alice", "first password"), ("bob", PASSWORD), ("alice", PASSWORD)):
        monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
        user(name, path)
    users = read_users(path)
    assert await users.accepts("alice", PASSWORD)
    assert not await users.accepts("alice", "first password")
    assert path.stat().st_mode & 0o077 == 0
    assert PASSWORD not in path.read_text() + capsys.readouterr().out


def test_a_bad_password_makes_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    with pytest.raises(CommandError, match="12 characters"):
        user("alice", tmp_path / "users")
    assert not (tmp_path / "users").exists()
