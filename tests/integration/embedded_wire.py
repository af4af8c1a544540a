"""Requests as bytes, for tests of what no client library would send."""

from __future__ import annotations

import asyncio
import struct

from streams.embedded import EmbeddedLog

WAIT_S = 20.0


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def request(api_key: int, version: int, correlation_id: int, body: bytes = b"") -> bytes:
    """A framed request with the old header (versions without tagged fields) and no client id."""
    return framed(struct.pack(">hhih", api_key, version, correlation_id, -1) + body)


def api_versions(correlation_id: int = 7) -> bytes:
    return request(18, 0, correlation_id)


def string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


class Wire:
    """One plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, log: EmbeddedLog) -> Wire:
        return cls(*await asyncio.open_connection(log.host, log.port))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """(correlation id, body) of the next answer; IncompleteReadError when the log closes."""
        async with asyncio.timeout(WAIT_S):
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            body = await self._reader.readexactly(size)
        return int.from_bytes(body[:4], "big"), body[4:]

    async def is_alive(self, correlation_id: int = 99) -> bool:
        """Does it answer one more request, after everything before?"""
        self.send(api_versions(correlation_id))
        try:
            while (await self.answer())[0] != correlation_id:
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        return True

    async def closed(self) -> bytes:
        """What still comes until the log closes; TimeoutError when it does not."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self._writer.close()
