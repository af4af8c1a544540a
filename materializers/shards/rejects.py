"""What a partition refuses: letters for the dead-letter topic and a count for each reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from materializers.materializer import RowReader, RowWriter, TableSpec
from materializers.tables.pending import Letter
from schemas.errors import RecordError
from schemas.records.dead_letter import dead_letter, letter_headers

REJECT_COUNTS_TABLE: Final = TableSpec("reject_counts", "reason -> count u64 BE", bloom=False)

_Decoded = TypeVar("_Decoded")


class Rejects:
    """Shared by the shards of one partition; its rows and letters go with the user shard's flush."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._changed: set[str] = set()
        self._letters: list[Letter] = []

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def decoded(self, record: Any, decode: Callable[[bytes], _Decoded]) -> _Decoded | None:
        """What the value of the log's ``record`` states; None if it is unreadable: then it is refused."""
        value = record.value or b""
        try:
            return decode(value)
        except RecordError as error:
            self.refuse(record, None, error, value)
            return None

    def refuse(self, record: Any, event: int | None, error: RecordError, raw: bytes) -> None:
        """``record`` is the log's record; ``raw`` what a fix would send again."""
        letter = dead_letter(error, record, event)
        self._letters.append(Letter(record.key, raw, letter_headers(letter)))
        self.count(error.code)

    def count(self, code: str, times: int = 1) -> None:
        self._counts[code] = self._counts.get(code, 0) + times
        self._changed.add(code)

    def take_letters(self) -> list[Letter]:
        letters, self._letters = self._letters, []
        return letters

    def flush(self, writer: RowWriter) -> None:
        for code in sorted(self._changed):
            writer.put(REJECT_COUNTS_TABLE.name, code.encode(), self._counts[code].to_bytes(8, "big"))
        self._changed.clear()

    def restore(self, reader: RowReader) -> None:
        self._counts = {
            key.decode(): int.from_bytes(value, "big") for key, value in reader.scan(REJECT_COUNTS_TABLE.name)
        }
