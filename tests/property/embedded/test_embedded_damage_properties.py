"""A whole folder with damage anywhere – segments, indexes, the journal: it opens or says why not, serves only
what was written, and `verify` names every loss before the start repairs it.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.embedded.errors import CorruptBatchError, LogFolderError
from streams.embedded.inspection import verify_log
from tests.property.embedded.test_embedded_power_cut import TOPICS, Node, World, run
from tests.unit.embedded.support import Row, last_header, rows

Place = tuple[str, int]
PLACES: list[Place] = [(name, index) for name, (count, _) in TOPICS.items() for index in range(count)]


def damage(folder: Path, rng: random.Random) -> None:
    """Cut, flip or overwrite up to three files, wherever they are."""
    for _ in range(rng.randrange(1, 4)):
        path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
        content = bytearray(path.read_bytes())
        if not content:
            continue
        at = rng.randrange(len(content))
        how = rng.randrange(3)
        if how == 0:
            del content[at:]
        elif how == 1:
            content[at] ^= 1 << rng.randrange(8)
        else:
            content[at : at + 30] = rng.randbytes(len(content[at : at + 30]))
        path.write_bytes(content)


def readable(node: Node) -> dict[Place, list[Row]]:
    """What readers of every partition get, going on behind what they are refused."""
    found: dict[Place, list[Row]] = {}
    for place in PLACES:
        log = node.topics.partition(*place)
        if log is None:
            continue
        kept = found.setdefault(place, [])
        offset = log.start_offset
        while offset < log.end_offset:
            try:
                data = log.read(offset, 1 << 16, committed=False)
            except CorruptBatchError:
                offset += 1
                continue
            if not data:
                break
            kept += [row for row in rows(data) if row.offset >= offset]
            offset = last_header(data).next_offset
    return found


def opened(folder: Path) -> dict[Place, list[Row]] | None:
    """What can be read after a start; None when the log refuses the folder and says why."""
    try:
        node = Node(folder)
    except LogFolderError:
        return None
    try:
        return readable(node)
    finally:
        node.close()


@settings(max_examples=25)
@given(st.integers(0, 1 << 32))
def test_damage_anywhere_is_named_and_never_served(seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, damaged = Path(scratch) / "whole", Path(scratch) / "damaged"
        whole.mkdir()
        # Five cycles: no compaction and no moved start, so that what is missing is a loss.
        run(whole, World(), rng, cycles=5)
        shutil.copytree(whole, damaged)
        before = opened(whole)
        assert before is not None
        damage(damaged, rng)
        named = verify_names(damaged)
        after = opened(damaged)
        if after is None:
            return
        for place, written in before.items():
            served = after.get(place, [])
            assert set(served) <= set(written), f"{place}: a record that nobody wrote"
            assert [row.offset for row in served] == sorted({row.offset for row in served})
            # An active file that was cut between two batches looks as if the rest was never written.
            assert named or served == written[: len(served)], f"{place}: a loss that verify does not name"


def verify_names(folder: Path) -> bool:
    """Does `verify` find something?"""
    try:
        return bool(verify_log(folder).findings)
    except LogFolderError:
        return True
