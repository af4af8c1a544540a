"""The topics of a log and their partitions: made, grown, deleted, found."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streams.embedded.commit import GroupCommit
from streams.embedded.metadata import MetadataStore, StartMoved, TopicCreated, TopicDeleted, TopicPurged
from streams.embedded.open_files import OpenFiles
from streams.embedded.partition import PartitionLog
from streams.embedded.segment import sync_directory
from streams.embedded.settings import LogSettings
from streams.embedded.topic_config import effective_config

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_valid_name(name: str) -> bool:
    """Kafka's rule for topic names."""
    return bool(_NAME.fullmatch(name)) and name not in (".", "..")


class Topics:
    """All topics; the metadata store knows them, this class holds their logs."""

    def __init__(
        self, data_dir: Path, settings: LogSettings, commit: GroupCommit, store: MetadataStore
    ) -> None:
        self._root = data_dir / "topics"
        self._settings = settings
        self._commit = commit
        self._store = store
        self.open_files = OpenFiles(settings.open_segments_max)
        self._unsynced_folders: set[Path] = set()
        self._logs: dict[str, list[PartitionLog]] = {}

    def load(self) -> None:
        """Open every partition and finish deletions that a crash interrupted."""
        for name, topic in self._store.state.topics.items():
            self._logs[name] = [self._open(topic, index) for index in range(topic.partitions)]
        self.sync_folders()
        for topic in list(self._store.state.deleted.values()):
            self.remove_files(topic)
            self.purged(topic)
        self._warn_of_strangers()

    def __iter__(self) -> Iterator[PartitionLog]:
        for logs in self._logs.values():
            yield from logs

    def names(self) -> list[str]:
        return list(self._logs)

    def partitions(self, name: str) -> list[PartitionLog] | None:
        return self._logs.get(name)

    def partition(self, name: str, index: int) -> PartitionLog | None:
        logs = self._logs.get(name)
        return logs[index] if logs is not None and 0 <= index < len(logs) else None

    def count(self) -> int:
        """Partitions of all topics."""
        return sum(map(len, self._logs.values()))

    def config(self, name: str) -> dict[str, str]:
        """The topic's own settings."""
        return self._store.state.topics[name].config

    def create(self, name: str, partitions: int, config: dict[str, str]) -> None:
        """A new topic; checked by the caller. Durable after the next commit cycle."""
        topic = TopicCreated(name, self._store.state.next_incarnation, partitions, config)
        self._store.append(topic)
        self._logs[name] = [self._open(topic, index) for index in range(partitions)]

    def grow(self, name: str, partitions: int) -> None:
        topic = msgspec.structs.replace(self._store.state.topics[name], partitions=partitions)
        self._store.append(topic)
        logs = self._logs[name]
        logs += [self._open(topic, index) for index in range(len(logs), partitions)]

    def configure(self, name: str, config: dict[str, str]) -> None:
        """Replace a topic's own settings."""
        self._store.append(msgspec.structs.replace(self._store.state.topics[name], config=config))
        for log in self._logs[name]:
            log.config = effective_config(config, self._settings)

    def delete(self, name: str) -> TopicCreated:
        """Take a topic out. Its files go with `remove_files`, after the deletion is durable."""
        topic = self._store.state.topics[name]
        self._store.append(TopicDeleted(name))
        for log in self._logs.pop(name):
            log.retire()
        return topic

    def sync_folders(self) -> None:
        """Make the folders of new partitions durable, before they are announced; for any thread."""
        folders, self._unsynced_folders = self._unsynced_folders, set()
        for folder in folders:
            sync_directory(folder)
        if folders:
            sync_directory(self._root)
            sync_directory(self._root.parent)

    def remove_files(self, topic: TopicCreated) -> None:
        """Remove the files of a deleted topic; blocking, for any thread."""
        shutil.rmtree(self._folder(topic), ignore_errors=True)

    def purged(self, topic: TopicCreated) -> None:
        """Note that the files of a deleted topic are gone."""
        self._store.append(TopicPurged(topic.name, topic.incarnation))

    def move_start(self, log: PartitionLog, offset: int) -> None:
        """Delete records before `offset`; whole segments go, the rest is hidden."""
        before = log.start_offset
        gone = log.advance_start(offset)
        if log.start_offset != before:
            self._store.append(StartMoved(log.topic, log.index, log.start_offset))
        for segment in gone:
            self.open_files.forget(segment)
            segment.remove()

    def close(self) -> None:
        for log in self:
            log.close()

    def _folder(self, topic: TopicCreated) -> Path:
        return self._root / f"{topic.name}@{topic.incarnation}"

    def _open(self, topic: TopicCreated, index: int) -> PartitionLog:
        self._unsynced_folders.add(self._folder(topic))
        return PartitionLog(
            topic.name,
            index,
            self._folder(topic) / str(index),
            effective_config(topic.config, self._settings),
            self._settings,
            self._commit,
            self.open_files,
            self._store.state.starts.get((topic.name, index), 0),
        )

    def _warn_of_strangers(self) -> None:
        known = {self._folder(topic).name for topic in self._store.state.topics.values()}
        for folder in self._root.glob("*"):
            if folder.name not in known:
                logger.warning(
                    "%s belongs to no known topic and is left alone; remove it if it is not wanted", folder
                )
