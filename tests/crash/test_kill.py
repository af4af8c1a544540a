"""kill -9 of everything, under load."""

from __future__ import annotations

import random
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.brokers import Broker
from tests.crash.blows import kill_and_wipe_worker, kill_log, kill_queryd, kill_worker
from tests.crash.proof import Proof
from tests.crash.seeds import FIRST, FULL, SEEDS
from tests.oracle import CleanFold

WORKER = "worker-0"
LEDGERS = 400
"""Of several thousand: one request each."""


def _ledgers_equal(proof: Proof, clean: CleanFold) -> None:
    """queryd, killed twice and started again, tells what the log tells."""
    cells = clean.cells()
    # Workers tell what they have folded; queryd sees it with the next flush.
    proof.site.wait_until_queryd_answers(f"/v1/items/{quote(cells[0][0])}/signals?after={proof.end()}")
    for item, signal in random.Random(proof.seed).sample(cells, min(LEDGERS, len(cells))):
        ledger = proof.site.get(f"/v1/items/{quote(item)}/signals?signal={signal}")
        assert ledger["all_time"]["count"] == clean.count(item, signal), (item, signal, ledger)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_tables_equal_a_clean_fold_after_kills(broker: Broker, tmp_path: Path) -> None:
    """The short form: one plain kill, one with the disk wiped, one of queryd, and one of an embedded log."""
    blows = [kill_worker(WORKER), kill_and_wipe_worker(WORKER), kill_queryd()]
    if broker.variant == "embedded":
        blows.append(kill_log())
    Proof(broker, tmp_path, FIRST, 12_000, 800.0).run([WORKER], blows, queryd=True, after=_ledgers_equal)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not FULL, reason="the full form takes minutes: make crash-full")
@pytest.mark.parametrize("seed", SEEDS)
def test_tables_equal_a_clean_fold_after_fourteen_kills(broker: Broker, tmp_path: Path, seed: int) -> None:
    """The full form: ten kills of the worker, two with the disk wiped; two of queryd; two of the log."""
    blows = [kill_worker(WORKER)] * 8 + [kill_and_wipe_worker(WORKER)] * 2 + [kill_queryd()] * 2
    if broker.variant == "embedded":
        blows += [kill_log()] * 2
    Proof(broker, tmp_path, seed, 60_000, 800.0).run([WORKER], blows, queryd=True, after=_ledgers_equal)
