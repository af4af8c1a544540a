"""Users of the embedded log: hashed lines, and the SASL exchange that asks for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from streams.embedded.codec import ERRORS
from streams.embedded.errors import UsersError
from streams.embedded.login import Login
from streams.embedded.users import Users, parse_users, read_users, user_line

PASSWORD = "correct horse battery"
LINE = user_line("alice", PASSWORD)


@pytest.fixture
def users() -> Users:
    return parse_users(["# those of the test", "", LINE], "users")


async def test_a_password_is_checked_against_its_hash(users: Users) -> None:
    assert PASSWORD not in LINE
    assert user_line("alice", PASSWORD) != LINE
    assert not await users.accepts("alice", "wrong horse battery")
    assert not await users.accepts("bob", PASSWORD)
    assert not await users.accepts("alice", "x" * 100_000)
    assert await users.accepts("alice", PASSWORD)
    # The second time from memory, which a wrong one does not profit from.
    assert await users.accepts("alice", PASSWORD)
    assert not await users.accepts("alice", PASSWORD + "x")


def test_a_file_of_users(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"{LINE}\n{user_line('bob', PASSWORD)}\n")
    read_users(path)
    with pytest.raises(UsersError, match="cannot be read"):
        read_users(tmp_path / "missing")


@pytest.mark.parametrize(
    "line, why",
    [
        ("alice:secret", "line 1: is not NAME:scrypt"),
        (LINE.replace("scrypt", "plain"), "is not NAME:scrypt"),
        (LINE.replace("alice", "a b"), "is not NAME:scrypt"),
        (LINE.replace(":15:8:1:", ":30:8:1:"), "its cost 30:8:1 is not taken"),
        (LINE.replace(":15:8:1:", ":x:8:1:"), "line 1: invalid literal"),
        (LINE[:-20], "a hash of 17 bytes|not base64"),
        (LINE + "!", "not base64"),
        ("", "no user in it"),
        (LINE + "\n" + LINE, "line 2: user alice stands there twice"),
    ],
)
def test_a_line_that_is_none_is_named_without_its_content(line: str, why: str) -> None:
    with pytest.raises(UsersError, match=why) as caught:
        parse_users(line.split("\n"), "users")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name, password", [("a:b", PASSWORD), ("", PASSWORD), ("alice", "short"), ("alice", "x" * 2000)]
)
def test_names_and_passwords_have_a_form(name: str, password: str) -> None:
    with pytest.raises(UsersError):
        user_line(name, password)


def plain(name: str, password: str, acts_for: str = "") -> SimpleNamespace:
    return SimpleNamespace(auth_bytes=f"{acts_for}\0{name}\0{password}".encode())


async def test_a_login_is_a_handshake_and_a_password(users: Users) -> None:
    login = Login(users)
    assert login.is_needed
    assert login.handshake(SimpleNamespace(mechanism="PLAIN")) == {"mechanisms": ("PLAIN",)}
    assert (await login.authenticate(plain("alice", PASSWORD, "alice"))).get("error_code", 0) == 0
    assert (login.is_needed, login.has_failed) == (False, False)


@pytest.mark.parametrize(
    "token",
    [
        plain("alice", "wrong horse battery"),
        plain("bob", PASSWORD),
        plain("alice", PASSWORD, acts_for="root"),
        SimpleNamespace(auth_bytes=b"alice"),
        SimpleNamespace(auth_bytes=b"\0\xff\0x"),
        SimpleNamespace(auth_bytes=b""),
    ],
)
async def test_every_wrong_login_gets_the_same_answer_and_ends(users: Users, token: SimpleNamespace) -> None:
    login = Login(users)
    login.handshake(SimpleNamespace(mechanism="PLAIN"))
    assert await login.authenticate(token) == {
        "error_code": ERRORS["sasl_authentication_failed"],
        "error_message": "user or password is wrong",
    }
    assert (login.is_needed, login.has_failed) == (True, True)


async def test_the_exchange_has_an_order(users: Users) -> None:
    login = Login(users)
    assert (await login.authenticate(plain("alice", PASSWORD)))["error_code"] == ERRORS["illegal_sasl_state"]
    assert login.has_failed
    login = Login(users)
    answer = login.handshake(SimpleNamespace(mechanism="SCRAM-SHA-256"))
    assert answer["error_code"] == ERRORS["unsupported_sasl_mechanism"]
    assert answer["mechanisms"] == ("PLAIN",)
    assert login.has_failed


async def test_without_users_there_is_nothing_to_log_in_to() -> None:
    login = Login(None)
    assert login.handshake(SimpleNamespace(mechanism="PLAIN"))["error_code"] == ERRORS["illegal_sasl_state"]
    assert (await login.authenticate(plain("a", "b")))["error_code"] == ERRORS["illegal_sasl_state"]
    assert (login.is_needed, login.has_failed) == (False, False)
