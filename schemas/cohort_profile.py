"""A user's cohort profile: the values of all dimensions, as one canonical string that can be interned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import msgspec

EMPTY_PROFILE: Final = "{}"
"""The profile of a user who belongs to no value of any dimension, and of anonymous events."""

_decoder = msgspec.json.Decoder(dict[str, str])


def encode_profile(profile: Mapping[str, str]) -> str:
    """The canonical string ``{"age":"18-24","locale":"US"}`` of ``{dimension: value}``.

    Equal profiles are equal strings: keys sorted, no spaces, characters as themselves.
    """
    return json.dumps(dict(profile), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def parse_profile(text: str) -> dict[str, str]:
    """``{dimension: value}`` of a profile string.

    Raises:
        msgspec.DecodeError: not a profile string.
    """
    return _decoder.decode(text)
