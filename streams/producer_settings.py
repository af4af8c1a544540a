"""Every number of the producer, with the reason for its value."""

from __future__ import annotations

from typing import Literal

import msgspec

MIB = 1 << 20


class ProducerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and intervals of one producer. Sizes in bytes, times in the unit named last."""

    # The group commit: one record, one acknowledgement.
    group_events_max: int = 100
    group_linger_ms: float = 10.0
    # Records of a large batch: 4,096 events are 100 to 250 KB, well under what a log takes, and enough for
    # the fixed cost of a record to vanish.
    bulk_events_max: int = 4096
    # Kafka's default max.message.bytes is 1,048,588 with its framing.
    record_bytes_max: int = 1_000_000
    # Events accepted and not yet acknowledged. At 5,000 events a second 64 MiB hold about 40 s of a log away.
    buffer_bytes_max: int = 64 * MIB
    # How long a caller may wait for room before it is refused. An HTTP request should fail well within its
    # client's patience.
    block_timeout_s: float = 10.0
    # From the call to the acknowledgement, retries included; Kafka's own default.
    delivery_timeout_ms: int = 120_000
    # The groups of one tick share requests; more than this would only be added to the group's linger.
    request_linger_ms: float = 1.0
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    # Ctrl-C promises to be done within 10 s.
    close_timeout_s: float = 8.0
