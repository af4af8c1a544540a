"""The bucket blocks of a view of signals, as the schema wants them."""

from __future__ import annotations

from materializers.blocks import BlockLog
from materializers.materializer import PartitionContext
from materializers.views.signal_columns import linear_signals, signal_codes


def block_log(table: str, context: PartitionContext) -> BlockLog:
    """Blocks of one table of one partition."""
    schema = context.schema
    return BlockLog(
        table,
        context.rows,
        signal_codes(schema),
        schema.limits.late_minute_horizon_ms,
        timed=linear_signals(schema),
        hours_kept_ms=schema.limits.hour_buckets_kept_ms,
    )
