"""Who may call what: keys with roles, an optional scope to one user, and a rate for each caller.

Keys come from a TOML file, so that secrets are neither on a command line nor in the environment of children:

    [[key]]
    name = "web"
    secret = "at least sixteen characters"
    role = "read"            # read, write (and read) or admin (and both)
    user = "user_U"          # optional: only this user's own data and pages
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from queryd.http.problems import ProblemError
from queryd.http.route import Role
from schemas.errors import TidalError

SECRET_CHARACTERS_MIN = 16
CALLERS_MAX = 10_000
"""Bound of the rate limiter's memory: beyond it, the caller that was quiet for longest is forgotten."""

_ROLES = {"read": Role.READ, "write": Role.WRITE, "admin": Role.ADMIN}


class AccessError(TidalError):
    """The access configuration is missing, unreadable or unsafe."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: a key's name, what it may do, and the one user that it is limited to, if any."""

    name: str
    role: Role
    user: str | None = None

    def require_user(self, user: str | None, what: str) -> None:
        """Raises ProblemError (403) when this key is limited to another user than `user`."""
        if self.user is not None and user != self.user:
            raise ProblemError(
                403, "other_user", f"key {self.name!r} is limited to user {self.user!r} and may not {what}"
            )


LOCAL_CALLER = Caller(name="local", role=Role.ADMIN)
ANONYMOUS_CALLER = Caller(name="anonymous", role=Role.OPEN)


class _KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    secret: str
    role: str = "read"
    user: str | None = None


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: list[_KeyEntry] = []


class Keys:
    """The configured keys, held only as digests of their secrets."""

    def __init__(self, entries: Iterable[tuple[str, Caller]] = ()) -> None:
        self._callers = {_digest(secret): caller for secret, caller in entries}

    def __len__(self) -> int:
        return len(self._callers)

    def caller_of(self, secret: str) -> Caller | None:
        """The caller with this secret. Looking up a digest leaks no timing about the secret itself."""
        return self._callers.get(_digest(secret))

    @classmethod
    def from_file(cls, path: Path) -> Keys:
        """Keys of a TOML file. Raises AccessError that names the file and the entry."""
        try:
            document = tomllib.loads(path.read_text("utf-8"))
            parsed = msgspec.convert(document, _KeyFile)
        except OSError as error:
            raise AccessError(f"cannot read the key file {path}: {error.strerror}; check the path") from error
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise AccessError(f"the key file {path} is not valid: {error}; see docs/operations.md") from error
        return cls([(entry.secret, _caller(path, entry)) for entry in parsed.key])


def _caller(path: Path, entry: _KeyEntry) -> Caller:
    if len(entry.secret) < SECRET_CHARACTERS_MIN:
        raise AccessError(
            f"key {entry.name!r} in {path}: the secret has {len(entry.secret)} characters, "
            f"expected at least {SECRET_CHARACTERS_MIN}"
        )
    if entry.role not in _ROLES:
        raise AccessError(f"key {entry.name!r} in {path}: role {entry.role!r}, expected read, write or admin")
    return Caller(name=entry.name, role=_ROLES[entry.role], user=entry.user)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, keys: Keys) -> None:
    """Raises AccessError when a server bound to `host` would serve strangers without asking for a key."""
    if len(keys) == 0 and not is_loopback(host):
        raise AccessError(
            f"queryd would listen on {host}, which other machines can reach, and no keys are configured: "
            "give a key file with --keys FILE (TIDAL_QUERYD_KEYS_FILE), or bind to 127.0.0.1"
        )


def check_local_request(host: str, origin: str | None) -> None:
    """Raises ProblemError (403) for what a web page of somebody else makes a local user's browser send.

    Without keys whoever reaches loopback is trusted, and a browser reaches it on behalf of any page: a plain
    POST needs no permission, and a name that resolves to 127.0.0.1 makes the page look local. The browser
    hides neither: it states the page's origin, and the name in Host.
    """
    name = urlsplit(f"//{host}").hostname or ""
    if not is_loopback(name):
        raise ProblemError(
            403,
            "foreign_host",
            f"the request is for host {name!r}, this server is for 127.0.0.1 without keys",
        )
    if origin is not None and origin != "null" and urlsplit(origin).netloc == host:
        return
    if origin is not None:
        raise ProblemError(403, "foreign_origin", f"a page of {origin} may not use this server without a key")


def authorize(keys: Keys, authorization: str | None, needed: Role) -> Caller:
    """The caller of a request to a route that needs role `needed`.

    Without configured keys everybody is the local administrator (`check_exposure` has seen to it that nobody
    else can connect). Raises ProblemError: 401 without a valid key, 403 when its role does not suffice.
    """
    if len(keys) == 0:
        return LOCAL_CALLER
    if authorization is None:
        if needed is Role.OPEN:
            return ANONYMOUS_CALLER
        raise _unauthorized("this route needs a key: send `Authorization: Bearer KEY`")
    scheme, _, secret = authorization.partition(" ")
    caller = keys.caller_of(secret.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise _unauthorized("the key is not known: send `Authorization: Bearer KEY` with a configured key")
    if caller.role < needed:
        raise ProblemError(
            403,
            "role",
            f"key {caller.name!r} has role {caller.role.name.lower()}, here {needed.name.lower()} is needed",
        )
    return caller


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="tidal"'})


class RateLimiter:
    """A token bucket for each caller: `rate_per_s` requests a second, bursts of one second's worth.

    A rate of 0 means no limit.
    """

    def __init__(self, rate_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, rate_per_s)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Counts one request. Raises ProblemError (429, Retry-After in seconds) when there are too many."""
        if self._rate_per_s <= 0:
            return
        now = self._clock()
        tokens, seen = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - seen) * self._rate_per_s)
        allowed = tokens >= 1.0
        self._buckets[caller] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = max(1, int((1.0 - tokens) / self._rate_per_s + 0.999))
            raise ProblemError(
                429,
                "rate_limit",
                f"more than rate_limit_per_s = {self._rate_per_s:g} requests a second; wait {wait_s} s",
                limit="rate_limit_per_s",
                headers={"Retry-After": str(wait_s)},
            )
