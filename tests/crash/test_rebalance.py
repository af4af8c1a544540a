"""Workers that join, leave, die and come back as zombies, under load."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.brokers import Broker
from tests.crash.blows import freeze, join, kill_worker, leave
from tests.crash.proof import Proof

SEED = int(os.environ.get("TIDAL_CRASH_SEED", "20261121"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tables_equal_a_clean_fold_while_workers_come_and_go(broker: Broker, tmp_path: Path) -> None:
    """Two share the partitions; one joins, one leaves, one is killed and returns, one becomes a zombie."""
    proof = Proof(broker, tmp_path, SEED, events=40_000, events_per_s=600.0)
    order = [join("gamma"), leave("alpha"), kill_worker("beta"), freeze("gamma", random.Random(SEED))]
    proof.run(["alpha", "beta"], order, shuffle=False)
