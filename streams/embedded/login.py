"""The SASL exchange of one connection: handshake, then PLAIN (RFC 4616). Nothing else is served before it."""

from __future__ import annotations

from typing import Any

from streams.embedded.codec import ERRORS, ResponseBody
from streams.embedded.users import Users

_MECHANISM = "PLAIN"


class Login:
    """`is_needed` until somebody has logged in; `has_failed` asks for the end of the connection."""

    def __init__(self, users: Users | None) -> None:
        self._users = users
        self._has_shaken_hands = False
        self.is_needed = users is not None
        self.has_failed = False

    def handshake(self, request: Any) -> ResponseBody:
        """The client names its mechanism."""
        if not self.is_needed:
            return {"error_code": ERRORS["illegal_sasl_state"]}
        if request.mechanism != _MECHANISM:
            self.has_failed = True
            return {"error_code": ERRORS["unsupported_sasl_mechanism"], "mechanisms": (_MECHANISM,)}
        self._has_shaken_hands = True
        return {"mechanisms": (_MECHANISM,)}

    async def authenticate(self, request: Any) -> ResponseBody:
        """The client says who it is: an optional identity to act for, its name, its password."""
        if self._users is None or not (self.is_needed and self._has_shaken_hands):
            self.has_failed = self.is_needed
            return _refused("illegal_sasl_state", "SaslHandshake comes first, and only once")
        fields = _fields(request.auth_bytes)
        if fields is not None:
            acts_for, name, password = fields
            if acts_for in ("", name) and await self._users.accepts(name, password):
                self.is_needed = False
                return {"error_message": None}
        self.has_failed = True
        # The same words for every reason: a guess must not learn which names exist.
        return _refused("sasl_authentication_failed", "user or password is wrong")


def _fields(token: bytes) -> tuple[str, str, str] | None:
    try:
        acts_for, name, password = token.decode().split("\0")
    except ValueError:
        return None
    return acts_for, name, password


def _refused(code: str, reason: str) -> ResponseBody:
    return {"error_code": ERRORS[code], "error_message": reason}
