"""A Faust table that stands for one shard: it puts the shard's changelog topic into the co-partitioned
group.
"""

from __future__ import annotations

from typing import Any

import faust


class ShardTable(faust.Table[bytes, bytes]):
    """Rows are written by the table layer, a batch at a time; single assignments are refused."""

    def on_key_set(self, key: Any, value: Any) -> None:
        raise TypeError(f"{self.name}: rows are written by the shard's write batch, not by assignment")

    def on_key_del(self, key: Any) -> None:
        raise TypeError(f"{self.name}: rows are deleted by the shard's write batch, not by del")
