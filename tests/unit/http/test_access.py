"""Keys, roles, rates, exposure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from queryd.http.access import (
    CALLERS_MAX,
    AccessError,
    Caller,
    Keys,
    RateLimiter,
    authorize,
    check_exposure,
    is_loopback,
)
from queryd.http.problems import ProblemError
from queryd.http.route import Role
from queryd.http.services import Services

Client = TestClient[Any, Any]
KEYS = Keys(
    [
        ("reader-secret-0000", Caller("reader", Role.READ)),
        ("writer-secret-0000", Caller("writer", Role.WRITE)),
        ("admin-secret-00000", Caller("admin", Role.ADMIN)),
    ]
)


def bearer(secret: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, Keys())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org", ""])
def test_beyond_loopback_keys_are_needed(host: str) -> None:
    with pytest.raises(AccessError, match="--keys"):
        check_exposure(host, Keys())
    check_exposure(host, KEYS)


@pytest.mark.parametrize(
    ("secret", "needed", "name"),
    [
        ("reader-secret-0000", Role.READ, "reader"),
        ("writer-secret-0000", Role.READ, "writer"),
        ("writer-secret-0000", Role.WRITE, "writer"),
        ("admin-secret-00000", Role.ADMIN, "admin"),
    ],
)
def test_roles_include_the_lesser_ones(secret: str, needed: Role, name: str) -> None:
    assert authorize(KEYS, f"Bearer {secret}", needed).name == name
    assert authorize(KEYS, f"bearer  {secret}", needed).name == name


@pytest.mark.parametrize(
    ("header", "needed", "status"),
    [
        (None, Role.READ, 401),
        ("Bearer wrong", Role.READ, 401),
        ("Bearer wrong", Role.OPEN, 401),
        ("Basic reader-secret-0000", Role.READ, 401),
        ("Bearer ", Role.READ, 401),
        ("Bearer reader-secret-0000", Role.WRITE, 403),
        ("Bearer writer-secret-0000", Role.ADMIN, 403),
    ],
)
def test_refusals(header: str | None, needed: Role, status: int) -> None:
    with pytest.raises(ProblemError) as raised:
        authorize(KEYS, header, needed)
    assert raised.value.status == status


async def test_over_http(services: Services, client: Client) -> None:
    services.keys = KEYS
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 200
    assert (await client.get("/openapi.json")).status == 200
    for path in ("/v1/status", "/metrics", "/v1/schema", "/v1/items/i/signals"):
        reply = await client.get(path)
        assert reply.status == 401, path
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await client.get("/v1/status", headers=bearer("reader-secret-0000"))).status == 200
    event = {"kind": "view", "item": "i"}
    reply = await client.post("/v1/signals", json=event, headers=bearer("reader-secret-0000"))
    assert reply.status == 403
    assert "write" in (await reply.json())["detail"]
    assert (await client.post("/v1/signals", json=event, headers=bearer("writer-secret-0000"))).status == 202


async def test_every_route_but_the_open_ones_asks_for_a_key(services: Services, client: Client) -> None:
    from queryd.http.routes import all_routes

    services.keys = KEYS
    for route in all_routes():
        path = route.path.replace("{", "").replace("}", "")
        status = (await client.request(route.method, path)).status
        assert (status == 401) == (route.role is not Role.OPEN), f"{route.method} {route.path} → {status}"


def test_key_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('[[key]]\nname = "app"\nsecret = "0123456789abcdef"\nrole = "write"\nuser = "u1"\n')
    keys = Keys.from_file(path)
    assert keys.caller_of("0123456789abcdef") == Caller("app", Role.WRITE, "u1")
    assert keys.caller_of("0123456789abcdeX") is None


@pytest.mark.parametrize(
    "content",
    [
        '[[key]]\nname = "app"\nsecret = "short"\n',
        '[[key]]\nname = "app"\nsecret = "0123456789abcdef"\nrole = "root"\n',
        '[[key]]\nname = "app"\nsecret = "0123456789abcdef"\nrol = "read"\n',
        "[[key]",
    ],
)
def test_bad_key_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content)
    with pytest.raises(AccessError, match=r"keys\.toml"):
        Keys.from_file(path)


def test_a_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot read"):
        Keys.from_file(tmp_path / "none.toml")


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_kept_for_each_caller() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, clock)
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(ProblemError) as raised:
        limiter.take("a")
    assert raised.value.status == 429
    assert raised.value.headers == {"Retry-After": "1"}
    assert raised.value.limit == "rate_limit_per_s"
    limiter.take("b")
    clock.now += 0.5
    limiter.take("a")
    with pytest.raises(ProblemError):
        limiter.take("a")


def test_a_slow_rate_says_how_long_to_wait() -> None:
    limiter = RateLimiter(0.1, Clock())
    limiter.take("a")
    with pytest.raises(ProblemError) as raised:
        limiter.take("a")
    assert raised.value.headers == {"Retry-After": "10"}


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(0.0, Clock())
    for _ in range(1000):
        limiter.take("a")


def test_callers_are_bounded() -> None:
    limiter = RateLimiter(1.0, Clock())
    for index in range(CALLERS_MAX + 5):
        limiter.take(str(index))
    limiter.take("0")
    with pytest.raises(ProblemError):
        limiter.take(str(CALLERS_MAX))


async def test_the_rate_over_http(services: Services, client: Client) -> None:
    services.limiter = RateLimiter(1.0, Clock())
    assert (await client.get("/v1/status")).status == 200
    reply = await client.get("/v1/status")
    assert reply.status == 429
    assert reply.headers["Retry-After"] == "1"
    assert (await client.get("/livez")).status == 200


@pytest.mark.parametrize("path", ["/v1/signals", "/v1/query"])
async def test_foreign_pages_cannot_use_a_local_server(client: Client, path: str) -> None:
    """A page elsewhere may make a browser send this; the browser says where the page is from."""
    own = f"http://127.0.0.1:{client.port}"
    for headers in (
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://example.org", "Host": "example.org"},
        {"Host": "example.org"},
    ):
        reply = await client.post(path, data=b"{}", headers=headers)
        assert reply.status == 403, headers
    assert (await client.post(path, data=b"{}", headers={"Origin": own})).status != 403
    assert (await client.post(path, data=b"{}", headers={"Host": "localhost:8080"})).status != 403


async def test_with_keys_any_page_may_ask(services: Services, client: Client) -> None:
    services.keys = KEYS
    headers = {**bearer("reader-secret-0000"), "Origin": "https://example.org", "Host": "example.org"}
    assert (await client.get("/v1/status", headers=headers)).status == 200
