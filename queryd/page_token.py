"""Where a page of ids ended, as a token that says nothing to those who carry it."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from queryd.errors import CursorError

VERSION: Final = 1
_CHARS_MAX: Final = 2_048
_decoder = msgspec.msgpack.Decoder(tuple[int, str, str])


def encode_page_token(listing: str, last: str) -> str:
    """The token of the page of ``listing`` that ended with the id ``last``."""
    body = msgspec.msgpack.encode((VERSION, listing, last))
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def decode_page_token(token: str, listing: str) -> str:
    """The id after which the next page of ``listing`` begins.

    Raises:
        CursorError: no token, one of another version, or of another listing.
    """
    try:
        padded = token[:_CHARS_MAX] + "=" * (-len(token) % 4)
        body = base64.b64decode(padded, altchars=b"-_", validate=True)
        version, named, last = _decoder.decode(body)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise CursorError("this is no cursor; leave it out to begin with the first page") from error
    if (version, named) != (VERSION, listing):
        raise CursorError(
            f"this cursor goes on with {named!r}, and {listing!r} was asked for; take the one of that list"
        )
    return last
