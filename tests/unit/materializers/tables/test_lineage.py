"""Which disks are descendants of the changelog's last checkpoint."""

from __future__ import annotations

import pytest

from materializers.tables.lineage import Decision, decide
from materializers.tables.meta import Ownership

LAST = Ownership(lineage="c7", attempt="c7", generation=3)


@pytest.mark.parametrize(
    "disk, log, expected",
    [
        (Ownership(lineage="c7"), LAST, Decision.KEEP),
        (Ownership(lineage="c7", attempt="c8"), LAST, Decision.KEEP),
        (Ownership(lineage="c6", attempt="c7"), LAST, Decision.KEEP_ATTEMPT),
        (Ownership(lineage="c6", attempt="x7"), LAST, Decision.RESTORE),
        (Ownership(), LAST, Decision.RESTORE),
        (Ownership(lineage="c7"), None, Decision.RESTORE),
        (Ownership(), None, Decision.RESTORE),
        (Ownership(), Ownership(), Decision.RESTORE),
    ],
    ids=[
        "last checkpoint is confirmed",
        "the next one was tried and not committed",
        "the one being tried was committed",
        "a zombie's disk: somebody else committed since",
        "an empty disk",
        "an emptied log",
        "both new",
        "a record without lineage claims nothing",
    ],
)
def test_decision(disk: Ownership, log: Ownership | None, expected: Decision) -> None:
    assert decide(disk, log) is expected
