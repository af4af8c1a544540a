"""Waiting until queries see what was written."""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from schemas.errors import TidalError
from streams.positions import Position, Positions
from tidal.client import Client
from tidal.client_errors import RefusedError

RETRY_S: Final = 0.05

NOT_YET: Final = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


class NotVisibleError(TidalError):
    """A write that the log has acknowledged was not applied in time."""


def wait_visible(client: Client, positions: Iterable[Position], timeout_s: float) -> None:
    """Returns when queries see the records at `positions`; searches too, which wait for their index.

    Raises NotVisibleError when they do not after `timeout_s`.
    """
    token = Positions.of(positions).encode()
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            client.query(f'SEARCH items QUERY "visible" LIMIT 1 AFTER "{token}"')
        except RefusedError as error:
            if error.problem.status not in NOT_YET:
                raise
            if time.monotonic() > deadline:
                raise NotVisibleError(
                    f"what was written is not visible after {timeout_s:.0f} s ({error}); "
                    "`tidal status` says how far the views are"
                ) from error
            time.sleep(RETRY_S)
        else:
            return
