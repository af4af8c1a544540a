"""What integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import Broker
from tests.crash.site import Site


@pytest.fixture
def site(request: pytest.FixtureRequest, broker: Broker, tmp_path: Path) -> Iterator[Site]:
    """Topics with the module's ``PARTITIONS``, and no process yet; what a test starts ends with it."""
    found = Site(broker, tmp_path, request.module.PARTITIONS)
    found.create_topics()
    yield found
    found.close()
