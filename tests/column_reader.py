"""queryd's columns over a site in memory, without an engine: for tests of what is read from them."""

from __future__ import annotations

from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.feeder import HOT_HOURS
from queryd.hot.loading import Loader
from queryd.hot.reads import SignalReads
from tests.engine_site import Site


class ColumnReader:
    """Reads the tables with ``load`` and the feed with ``follow``, and nothing by itself."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.hot = HotColumns(site.schema)
        self.cold = ColdTier(site.tables, self.hot)
        self.loader = Loader(site.tables, self.hot, self.cold, lambda _: None)
        self.expire()

    def expire(self) -> None:
        """Move what is older than the hot hours out of memory."""
        for cube in (self.hot.everybody, self.hot.by_profile):
            cube.expire(self.site.now_ms, HOT_HOURS)

    def load(self) -> None:
        """Read what the tables hold."""
        self.site.tables.changes()
        for _ in self.loader.scan():
            pass
        self.expire()

    def follow(self) -> None:
        """Apply what was flushed since the last time."""
        for _ in self.loader.apply(self.site.tables.changes()):
            pass
        self.expire()

    def reads(self, at_ms: int) -> SignalReads:
        """Reads of a request now, as of ``at_ms``."""
        return SignalReads(self.hot, self.cold, self.site.now_ms, at_ms)
