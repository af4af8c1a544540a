"""Who may use a log: names with hashed passwords, one `NAME:scrypt:LOG2N:R:P:SALT:HASH` for each user.

A password is hashed with scrypt (RFC 7914), which costs an attacker who has the file 32 MiB and about a
tenth of a second for each guess. A user who has logged in once is known again by a keyed digest in memory,
so that a client with many connections does not pay that each time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from streams.embedded.errors import UsersError

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_KIND = "scrypt"
_LOG2_N, _R, _P = 15, 8, 1
_SALT_BYTES, _HASH_BYTES = 16, 32
# 128 * n * r bytes; a line that asks for more is refused.
_MEMORY_BYTES_MAX = 256 << 20
PASSWORD_CHARACTERS_MIN = 12
PASSWORD_BYTES_MAX = 1024
# Hashes are computed in threads; more at once would take the cores from the log itself.
_HASHES_AT_ONCE = 2


class PasswordHash(NamedTuple):
    """A hashed password with all that is needed to check one."""

    log2_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, password: str) -> bool:
        """Takes a tenth of a second and releases the interpreter's lock; compares in constant time."""
        found = _scrypt(password, self.log2_n, self.r, self.p, self.salt, len(self.digest))
        return hmac.compare_digest(found, self.digest)


def user_line(name: str, password: str) -> str:
    """The line of a user for a file. Raises UsersError for a name or password that is not taken."""
    if not _NAME.fullmatch(name):
        raise UsersError(f"user name {name!r}: 1 to 64 of a-z A-Z 0-9 . _ @ - are allowed")
    if len(password) < PASSWORD_CHARACTERS_MIN or len(password.encode()) > PASSWORD_BYTES_MAX:
        raise UsersError(
            f"the password of {name}: {PASSWORD_CHARACTERS_MIN} characters at least, "
            f"{PASSWORD_BYTES_MAX} bytes at most"
        )
    if "\0" in password:
        raise UsersError(f"the password of {name}: a zero byte cannot be sent by SASL/PLAIN")
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, _LOG2_N, _R, _P, salt, _HASH_BYTES)
    numbers = f"{_LOG2_N}:{_R}:{_P}"
    return f"{name}:{_KIND}:{numbers}:{_text(salt)}:{_text(digest)}"


def read_users(path: Path) -> Users:
    """Users of a file; empty lines and those that begin with # say nothing. Raises UsersError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsersError(f"{path}: the users cannot be read: {error}") from error
    return parse_users(lines, str(path))


def parse_users(lines: Iterable[str], where: str) -> Users:
    """Users of such lines. Raises UsersError, which names `where` and the line's number, not its content."""
    users: dict[str, PasswordHash] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            name, known = _parse(text)
        except ValueError as error:
            raise UsersError(
                f"{where}, line {number}: {error}; make lines with `tidal log user NAME`"
            ) from error
        if name in users:
            raise UsersError(f"{where}, line {number}: user {name} stands there twice")
        users[name] = known
    if not users:
        raise UsersError(f"{where}: no user in it; make one with `tidal log user NAME`")
    return Users(users)


class Users:
    """Checks names and passwords. Made on any thread, used on one event loop."""

    def __init__(self, users: dict[str, PasswordHash]) -> None:
        self._users = users
        self._key = secrets.token_bytes(32)
        self._seen: dict[str, bytes] = {}
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        # Whoever does not exist takes as long as whoever does.
        self._nobody = PasswordHash(_LOG2_N, _R, _P, bytes(_SALT_BYTES), bytes(_HASH_BYTES))

    async def accepts(self, name: str, password: str) -> bool:
        """Is this the password of that user?"""
        if len(password.encode()) > PASSWORD_BYTES_MAX:
            return False
        digest = hashlib.blake2b(f"{name}\0{password}".encode(), key=self._key).digest()
        if hmac.compare_digest(self._seen.get(name, b""), digest):
            return True
        known = self._users.get(name)
        async with self._hashing:
            matches = await asyncio.to_thread((known or self._nobody).matches, password)
        if known is None or not matches:
            return False
        self._seen[name] = digest
        return True


def _parse(line: str) -> tuple[str, PasswordHash]:
    fields = line.split(":")
    if len(fields) != 7 or fields[1] != _KIND or not _NAME.fullmatch(fields[0]):
        raise ValueError(f"is not NAME:{_KIND}:LOG2N:R:P:SALT:HASH")
    log2_n, r, p = (int(field) for field in fields[2:5])
    if not (0 < log2_n < 32 and 0 < r < 64 and 0 < p < 17) or (128 * r << log2_n) > _MEMORY_BYTES_MAX:
        raise ValueError(f"its cost {log2_n}:{r}:{p} is not taken")
    salt, digest = _bytes(fields[5]), _bytes(fields[6])
    if len(salt) < _SALT_BYTES or not _HASH_BYTES <= len(digest) <= 64:
        raise ValueError(f"a salt of {len(salt)} and a hash of {len(digest)} bytes are not taken")
    return fields[0], PasswordHash(log2_n, r, p, salt, digest)


def _scrypt(password: str, log2_n: int, r: int, p: int, salt: bytes, size: int) -> bytes:
    memory = (128 * r << log2_n) + (1 << 20)
    return hashlib.scrypt(
        password.encode(), salt=salt, n=1 << log2_n, r=r, p=p, maxmem=2 * memory, dklen=size
    )


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("salt and hash are not base64") from error
