"""inspect, verify and dump: what they say of sound, torn and damaged folders; they change nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from streams.embedded import batch
from streams.embedded.dump import dump_topic
from streams.embedded.errors import LogFolderError
from streams.embedded.inspection import Finding, inspect_log, verify_log
from streams.embedded.metadata import ClusterNamed, MetadataStore
from streams.embedded.settings import LogSettings
from streams.embedded.topics import Topics
from tests.unit.embedded.support import ManualCommit, make_batch
from tidal.cli.failure import DONE, FAILED, WRONG_USAGE
from tidal.cli.main import run

SETTINGS = LogSettings(index_interval_bytes=300, checkpoint_bytes=1_000)
RECORDS = 60


class Folder:
    """Two topics, several segments, a transaction and a moved start; closed, or as a kill left it."""

    def __init__(self, path: Path, *, clean: bool = True) -> None:
        self.path = path
        path.mkdir()
        commit = ManualCommit()
        store = MetadataStore(path / "metadata.journal", 1 << 20, commit)  # type: ignore[arg-type]
        store.load()
        store.append(ClusterNamed("cluster"))
        topics = Topics(path, SETTINGS, commit, store)  # type: ignore[arg-type]
        topics.create("events", 2, {"segment.bytes": "2000"})
        topics.create("rows", 1, {"cleanup.policy": "compact"})
        log = topics.partition("events", 0)
        assert log is not None
        for number in range(RECORDS):
            records = [(b"k%d" % number, b"v" * 60), (b"%d" % number, None)]
            raw = make_batch(records, timestamp=1_000_000 + number * 10, codec=number % 5)
            log.append(raw, batch_header(raw), now_ms=1)
            commit.cycle()
        raw = make_batch([(b"t", b"\xff")], producer_id=7, epoch=0, sequence=0, transactional=True)
        log.append(raw, batch_header(raw), now_ms=1)
        log.append_marker(producer_id=7, epoch=0, commit=False, now_ms=1)
        topics.move_start(log, 3)
        commit.cycle()
        self.partition = log.directory
        self.end_offset = log.end_offset
        if clean:
            topics.close()
        store.close()

    def segments(self) -> list[Path]:
        return sorted(self.partition.glob("*.log"))

    def content(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.path.rglob("*") if path.is_file()}

    def damage(self) -> list[str]:
        return [finding.what for finding in self.findings() if finding.severity == "damage"]

    def findings(self) -> list[Finding]:
        return verify_log(self.path).findings


def batch_header(raw: bytearray) -> batch.BatchHeader:
    return batch.validate_produced(raw, 1 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "log")


@pytest.mark.parametrize("clean", [True, False])
def test_a_sound_log_is_sound_and_nothing_is_changed(tmp_path: Path, clean: bool) -> None:
    folder = Folder(tmp_path / "log", clean=clean)
    before = folder.content()
    result = verify_log(folder.path)
    assert result.is_sound
    assert result.findings == []
    assert (result.partitions, result.records, result.batches) == (3, 2 * RECORDS + 2, RECORDS + 2)
    assert result.bytes == sum(path.stat().st_size for path in folder.segments())
    facts = inspect_log(folder.path)
    list(dump_topic(folder.path, "events"))
    assert folder.content() == before
    events = facts.partitions[0]
    assert (events.start_offset, events.end_offset) == (3, folder.end_offset)
    assert (events.first_time_ms, events.last_time_ms) == (1_000_000, 1_000_000 + RECORDS * 10 - 9)
    assert len(events.segments) == len(folder.segments()) > 3
    assert facts.cluster_id == "cluster"
    assert facts.process is None
    assert facts.bytes == result.bytes


def test_a_torn_tail_is_a_note(folder: Folder) -> None:
    with folder.segments()[-1].open("ab") as file:
        file.write(make_batch([(b"torn", b"v")])[:70])
    (finding,) = folder.findings()
    assert finding.severity == "note"
    assert "torn tail of 70 bytes" in finding.what
    facts = inspect_log(folder.path).partitions[0]
    assert (facts.torn_bytes, facts.end_offset) == (70, folder.end_offset)


def test_a_flipped_bit_is_damage_and_the_rest_is_read(folder: Folder) -> None:
    path = folder.segments()[1]
    content = bytearray(path.read_bytes())
    content[70] ^= 1
    path.write_bytes(content)
    (what,) = folder.damage()
    assert f"they begin at offset {int(path.stem)}" in what
    assert verify_log(folder.path).batches > RECORDS // 2


def test_a_missing_segment_is_damage(folder: Folder) -> None:
    folder.segments()[2].unlink()
    (what,) = folder.damage()
    assert "its predecessor ends at" in what


def test_a_cut_segment_is_damage(folder: Folder) -> None:
    path = folder.segments()[-1]
    path.write_bytes(path.read_bytes()[:-10])
    assert any("were synced" in what for what in folder.damage())


def test_an_index_that_leads_elsewhere_is_damage(folder: Folder) -> None:
    first, second = (path.with_suffix(".snap") for path in folder.segments()[:2])
    first.write_bytes(second.read_bytes())
    assert folder.damage()


def test_a_torn_or_missing_index_is_a_note(folder: Folder) -> None:
    first, second = (path.with_suffix(".snap") for path in folder.segments()[:2])
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    assert [finding.severity for finding in folder.findings()] == ["note", "note"]


def test_a_missing_partition_and_a_damaged_journal_are_damage(folder: Folder) -> None:
    (folder.path / "topics" / "rows@2" / "0").rename(folder.path / "topics" / "stray")
    journal = folder.path / "metadata.journal"
    content = bytearray(journal.read_bytes())
    content[14] ^= 1
    journal.write_bytes(content)
    assert any("missing" in what for what in folder.damage())
    assert any("entries in them are lost" in what for what in folder.damage())
    assert any("no known topic" in finding.what for finding in folder.findings())


def test_records_of_a_topic_that_the_journal_forgot_are_damage_an_empty_folder_is_not(folder: Folder) -> None:
    (folder.path / "topics" / "left@9" / "0").mkdir(parents=True)
    assert folder.damage() == []
    journal = folder.path / "metadata.journal"
    journal.write_bytes(journal.read_bytes()[:20])
    (what,) = folder.damage()
    held = sum(path.stat().st_size for path in folder.path.rglob("*.log"))
    assert f"{held:,} bytes of records" in what


def test_a_batch_out_of_place_is_damage(folder: Folder) -> None:
    path = folder.segments()[0]
    content = bytearray(path.read_bytes())
    content[7] += 1
    path.write_bytes(content)
    assert any("offset 1 where 0 was due" in what for what in folder.damage())


def test_any_single_flipped_bit_of_a_segment_is_found(folder: Folder) -> None:
    rng = random.Random(11)
    for _ in range(400):
        path = rng.choice(folder.segments())
        content = bytearray(path.read_bytes())
        # Bytes 12 to 15 of a batch, its leader epoch, are outside of every checksum and mean nothing here.
        position = rng.randrange(len(content))
        content[position] ^= 1 << rng.randrange(8)
        before = path.read_bytes()
        path.write_bytes(content)
        found = folder.findings()
        path.write_bytes(before)
        assert found or in_leader_epoch(before, position)


def in_leader_epoch(content: bytes, position: int) -> bool:
    start = 0
    while start + batch.read_header(content, start).size <= position:
        start += batch.read_header(content, start).size
    return 12 <= position - start < 16


def test_the_dump_shows_records_markers_and_bytes(folder: Folder) -> None:
    records = list(dump_topic(folder.path, "events", 0, from_offset=10))
    assert [record.offset for record in records] == list(range(10, folder.end_offset))
    assert (records[0].key, records[0].value, records[0].timestamp_ms) == (b"k5", b"v" * 60, 1_000_050)
    assert (records[1].key, records[1].value) == (b"5", None)
    assert [(r.kind, r.producer_id) for r in records[-2:]] == [("record", 7), ("abort", 7)]
    assert [record.offset for record in dump_topic(folder.path, "events")][:2] == [3, 4]
    with pytest.raises(LogFolderError, match="events, rows"):
        next(dump_topic(folder.path, "nothing"))
    with pytest.raises(LogFolderError, match="0 to 1"):
        next(dump_topic(folder.path, "events", 9))


def test_the_commands(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder.path.parent)
    assert run(["log", "inspect", data, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["partitions"][0]["topic"] == "events"
    assert run(["log", "inspect", data]) == DONE
    assert "1970-01-01T00:16:40.000Z" in capsys.readouterr().out
    assert run(["log", "verify", data, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["is_sound"] is True
    assert run(["log", "dump", "events", "--data", data, "--from", "120", "--json"]) == DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["value_base64"] == "/w=="
    assert lines[1]["kind"] == "abort"
    assert run(["log", "dump", "events", "--data", data, "--limit", "1"]) == DONE
    assert capsys.readouterr().out.startswith('0\t3\t1970-01-01T00:16:40.011Z\trecord\t"1"\tnull')
    folder.segments()[2].unlink()
    assert run(["log", "verify", data]) == FAILED
    assert "DAMAGED" in capsys.readouterr().out
    assert run(["log", "verify", data + "/nowhere"]) == FAILED
    assert "holds no log" in capsys.readouterr().err
    assert run(["log"]) == WRONG_USAGE
