"""Every number that the embedded log lives by, with the reason for its value."""

from __future__ import annotations

import msgspec

MIB = 1 << 20


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits, intervals and defaults of one embedded log. Sizes in bytes, times in the unit named last."""

    # A closed segment is the unit of retention and compaction: 64 MiB keeps both cheap, and a
    # hundred partitions still stay within a laptop's usual limit of open files.
    segment_bytes: int = 64 * MIB
    # A segment of a quiet topic closes after this time, so that time retention can reach it.
    segment_age_ms: int = 7 * 24 * 3600 * 1000
    # One index entry for each 4 KiB of log: a lookup reads at most one page more than it needs.
    index_interval_bytes: int = 4096
    # Recovery scans at most this much of each active segment: 80 partitions scan in about a second.
    checkpoint_bytes: int = 16 * MIB

    # Kafka's own default for topics that set nothing else.
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = -1
    # A group that retention waits for and that has had no member for this long is waited for no more;
    # 0 = it is waited for until somebody says otherwise.
    guard_dead_after_ms: int = 0
    # A reader that is slower than this may miss a delete in a compacted topic; Kafka's default.
    delete_retention_ms: int = 24 * 3600 * 1000
    # Compact when at least half of the closed bytes are new since the last time: write amplification <= 2.
    dirty_ratio_min: float = 0.5
    # Keys of one compaction, about 200 bytes each in the child process; more are done in several rounds.
    compaction_keys_max: int = 2_000_000
    # Retention and compaction look this often; both are cheap when there is nothing to do.
    housekeeping_interval_s: float = 10.0

    # Extra time to gather writes into one fsync. Zero is right where an fsync costs 0.1 to 2 ms:
    # whatever arrives during one fsync shares the next.
    commit_interval_ms: float = 0.0
    # fsyncs of many partitions overlap in the file system's journal; more threads gained nothing
    # (24 files: 2.5 ms one by one, 1.3 ms with 4 threads, 1.2 ms with 16, measured on ext4).
    sync_threads: int = 4

    # Kafka's socket.request.max.bytes.
    request_bytes_max: int = 100 * MIB
    # Of all requests that carry no records: read into objects, they weigh up to a hundred times as much.
    control_bytes_max: int = 4 * MIB
    # The largest batch: well above what clients make (1 MiB), far below what would stall the loop.
    batch_bytes_max: int = 8 * MIB
    # One Fetch answer; a client may ask for less. Bounds the memory of a slow reader.
    fetch_bytes_max: int = 16 * MIB
    # Bytes received but not yet on disk, over all connections; above it the log stops reading sockets.
    unsynced_bytes_max: int = 128 * MIB
    # Requests received and not yet begun, over all connections. A large one is read when it fits in whole.
    received_bytes_max: int = 256 * MIB
    # Answers that slow readers have not taken, over all connections; above it nothing more is fetched.
    unsent_bytes_max: int = 256 * MIB
    # Requests of one connection that may wait for their turn before its socket is not read further.
    pipeline_max: int = 128
    pipeline_bytes_max: int = 8 * MIB
    connections_max: int = 2000
    # Before a login only a name and a password are expected.
    login_bytes_max: int = 64 * 1024
    # For the TLS handshake, and again for the login.
    login_timeout_s: float = 10.0
    # Kafka's connections.max.idle.ms; clients expect it and connect again.
    idle_timeout_s: float = 600.0
    # Nothing for this long in the middle of a request or of an answer: the peer is gone or means harm.
    stall_timeout_s: float = 30.0

    # Free space below which batches are refused; half a second of writing at 500 MB/s.
    disk_reserve_bytes: int = 256 * MIB

    # Long enough for the members of a group that start together to share its first generation.
    group_initial_delay_ms: int = 100
    # Tests use sessions of a second; Kafka's own upper bound is half an hour.
    session_timeout_ms_min: int = 500
    session_timeout_ms_max: int = 1_800_000
    rebalance_timeout_ms_max: int = 3_600_000
    group_members_max: int = 1000
    groups_max: int = 10_000
    offset_metadata_bytes_max: int = 4096

    # Kafka's transaction.max.timeout.ms.
    transaction_timeout_ms_max: int = 900_000
    # An id unused for a week is forgotten (Kafka: transactional.id.expiration.ms).
    transactional_id_age_ms: int = 7 * 24 * 3600 * 1000
    # An idle producer's sequences are forgotten after a day (Kafka: producer.id.expiration.ms).
    producer_age_ms: int = 24 * 3600 * 1000
    # Ids are reserved in blocks, so that handing one out needs no write; a restart skips the rest.
    producer_id_block: int = 1000

    partitions_default: int = 1
    partitions_max: int = 4000
    # Open files of closed segments; the least recently read one is closed first.
    open_segments_max: int = 256
    # The journal of topics, offsets and transactions is rewritten when it is this large and
    # at least four times what a fresh one would be.
    journal_bytes: int = 8 * MIB
