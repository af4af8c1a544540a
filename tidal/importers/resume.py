"""Where an interrupted import goes on: a small file that says how many rows of each phase the log has.

The file is written after the log's acknowledgement, so what a crash can leave is rows that are sent a second
time, never rows that are missing. Entity records are idempotent; a repeated event has the same kind, item,
user and second, and is dropped by the engine's dedup while its horizon (10 to 20 minutes) lasts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.broker_security import broker_options
from tidal.importers.rows import ImporterError

FOLDER: Final = "imports"
METADATA_TIMEOUT_S: Final = 10.0


def log_id(brokers: str) -> str:
    """The id that a log has given itself: another log at the same address is another one.

    Raises ImporterError when the log does not answer.
    """
    try:
        metadata = AdminClient(broker_options(brokers)).list_topics(timeout=METADATA_TIMEOUT_S)
    except KafkaException as error:
        raise ImporterError(
            f"no answer from the log at {brokers} ({error}); is `tidal up` running?"
        ) from error
    return str(metadata.cluster_id)


class _State(msgspec.Struct):
    source: str
    newest_ms: int | None = None
    done: dict[str, int] = {}
    complete: bool = False


class ResumeFile:
    """The state of one import into one site."""

    def __init__(self, folder: Path, source: str) -> None:
        self.path = folder / FOLDER / f"{blake3(source.encode()).hexdigest(8)}.json"
        self._state = _State(source)

    def load(self) -> bool:
        """Reads the state of an earlier run; False when there was none.

        Raises ImporterError when the import was finished before, or the file is damaged.
        """
        try:
            self._state = msgspec.json.decode(self.path.read_bytes(), type=_State)
        except FileNotFoundError:
            return False
        except msgspec.MsgspecError as error:
            raise ImporterError(
                f"{self.path} is damaged ({error}); --again starts the import anew"
            ) from error
        if self._state.complete:
            raise ImporterError(
                f"{self._state.source} was imported into this site already; a second time would count every "
                "event twice. --again does it all the same"
            )
        return True

    def done(self, phase: str) -> int:
        """Rows of a phase that the log has acknowledged."""
        return self._state.done.get(phase, 0)

    def newest_ms(self, default: int) -> int:
        """The time that the newest event is moved to: the first run's, so that both halves fit together."""
        if self._state.newest_ms is None:
            self._state.newest_ms = default
            self._write()
        return self._state.newest_ms

    def record(self, phase: str, rows: int) -> None:
        """`rows` rows of a phase are acknowledged."""
        self._state.done[phase] = rows
        self._write()

    def finish(self) -> None:
        """All is imported."""
        self._state.complete = True
        self._write()

    def forget(self) -> None:
        """Nothing was imported: the next import is the first."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".tmp")
        beside.write_bytes(msgspec.json.encode(self._state))
        beside.replace(self.path)
