"""Workers that join, leave, die and come back as zombies, under load."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.brokers import Broker
from tests.crash.blows import freeze, join, kill_worker, leave
from tests.crash.proof import Proof
from tests.crash.seeds import FULL, SEEDS

EVENTS, EVENTS_PER_S = (40_000, 600.0) if FULL else (16_000, 400.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_tables_equal_a_clean_fold_while_workers_come_and_go(
    broker: Broker, tmp_path: Path, seed: int
) -> None:
    """Two share the partitions; one joins, one leaves, one is killed and returns, one becomes a zombie."""
    proof = Proof(broker, tmp_path, seed, EVENTS, EVENTS_PER_S)
    order = [join("gamma"), leave("alpha"), kill_worker("beta"), freeze("gamma", random.Random(seed))]
    proof.run(["alpha", "beta"], order, shuffle=False)
