"""Every setting of an installation, with the reason for its value, in one typed object.

What the *site* wants (signals, profiles, limits of requests) is the schema's; what the *machine* needs is
here. Sections are structs; a value comes from a flag, else ``TIDAL_<SECTION>_<NAME>``, else ``tidal.toml``,
else the default (``settings_sources``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from schemas.durations import DAY_MS
from schemas.settings_sources import DEFAULT_FILE, load_sections

MIB: Final = 1 << 20

Count: TypeAlias = Annotated[int, Meta(ge=1)]
Size: TypeAlias = Annotated[int, Meta(ge=1)]
Millis: TypeAlias = Annotated[int, Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0.0)]
Address: TypeAlias = Annotated[str, Meta(pattern=r"^\S*:[0-9]{1,5}$", description="HOST:PORT")]

PROCESS_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""Of a worker or a queryd: it names a folder."""


class SiteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the site's data and its log are."""

    # Everything that is not in the log: tables, indexes, and the embedded log's segments.
    data_dir: str = "data"
    # host:port of a cluster, several divided by commas; empty = the embedded log.
    brokers: str = ""
    # A schema file; empty = the newest schema in the log, or the default.
    schema: str = ""


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How clients reach the log, the embedded one or a cluster."""

    # Kafka's names. sasl_ssl is what the embedded log asks for beyond this machine.
    security: Literal["plaintext", "ssl", "sasl_ssl", "sasl_plaintext"] = "plaintext"
    # The embedded log has PLAIN only; clusters often have SCRAM.
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    user: str = ""
    # A file is safer than a variable: other processes of this user may read those.
    password_file: str = ""
    password: str = ""
    # PEM, whose certificates are trusted; empty = the system's own.
    ca_file: str = ""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The embedded log. Sizes in bytes."""

    # Kafka's port, on this machine only: other addresses ask for a certificate and users.
    listen: Address = "127.0.0.1:9092"
    # HOST or HOST:PORT that clients are told to connect to; needed when it listens on all addresses.
    advertise: str = ""
    # PEM: the certificate with its chain, and its key. With users, all clients need TLS and a login.
    certificate_file: str = ""
    private_key_file: str = ""
    # Lines as `tidal log user NAME` makes them; passwords are hashed.
    users_file: str = ""
    # The same lines, divided by blanks, where a file is inconvenient.
    users: str = ""
    # HOST:PORT for Prometheus, without a login: it tells names of topics and groups. Empty = none.
    metrics: str = ""
    # Consumer groups, divided by commas: no retention deletes what they have not read. "app" is the
    # workers' own (topics.app); empty = none.
    guard_groups: str = "app"
    # A guarding group without members for this long guards no more; 0 = it guards for ever.
    guard_dead_after_s: Seconds = 0.0
    # The unit of retention and compaction: 64 MiB keeps both cheap and files few.
    segment_bytes: Size = 64 * MIB
    # Extra time to gather writes into one fsync. Zero is right where an fsync costs 0.1 to 2 ms:
    # whatever arrives during one fsync shares the next.
    commit_interval_ms: Annotated[float, Meta(ge=0.0)] = 0.0


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine's topics are made. Times in ms."""

    # Fixed at creation: the keys' partitions depend on it. Eight suit one machine; the capacity model says
    # when to choose more.
    partitions: Annotated[int, Meta(ge=1, le=1_024)] = 8
    # -1 is the cluster's default.
    replication: Annotated[int, Meta(ge=-1)] = -1
    # Must outlast the longest time that a view may be behind or may have to be rebuilt from the log.
    signals_retention_ms: Annotated[int, Meta(ge=-1)] = 30 * DAY_MS
    # Must outlast the longest stop of the workers.
    by_item_retention_ms: Annotated[int, Meta(ge=-1)] = 1 * DAY_MS
    dead_letter_retention_ms: Annotated[int, Meta(ge=-1)] = 30 * DAY_MS
    # What a compacted topic replaced or deleted is gone after this, and the deletes after as much again.
    compaction_lag_ms_max: Annotated[int, Meta(ge=1)] = 1 * DAY_MS
    # The changelogs' prefix and the workers' group: two installations on one cluster need two.
    app: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$")] = "tidal"


class ProducerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and intervals of one producer. Sizes in bytes, times in the unit named last."""

    # The group commit: one record, one acknowledgement.
    group_events_max: Count = 100
    group_linger_ms: Annotated[float, Meta(ge=0.0)] = 10.0
    # Records of a large batch: 4,096 events are 100 to 250 KB, well under what a log takes, and enough for
    # the fixed cost of a record to vanish.
    bulk_events_max: Annotated[int, Meta(ge=1, le=65_536)] = 4_096
    # Kafka's default max.message.bytes is 1,048,588 with its framing.
    record_bytes_max: Size = 1_000_000
    # Events accepted and not yet acknowledged. At 5,000 events a second 64 MiB hold about 40 s of a log away.
    buffer_bytes_max: Size = 64 * MIB
    # How long a caller may wait for room before it is refused: an HTTP client's patience is longer.
    block_timeout_s: Seconds = 10.0
    # From the call to the acknowledgement, retries included; Kafka's own default.
    delivery_timeout_ms: Millis = 120_000
    # The groups of one tick share requests; more than this would only be added to the group's linger.
    request_linger_ms: Annotated[float, Meta(ge=0.0)] = 1.0
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    # Ctrl-C promises to be done within 10 s.
    close_timeout_s: Seconds = 8.0


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. Times in the unit named last."""

    # Unique among the workers of the group: its folder and its place in the group.
    name: Annotated[str, Meta(pattern=PROCESS_NAME)] = "worker-0"
    # Idle, what was acknowledged is on disk and visible after about this; a flush of a few rows takes 1 ms.
    flush_interval_ms: Millis = 20
    # Under load the next flush waits twice as long as the last took, so that rows coalesce; never longer
    # than this, which is also what a crash has to read again.
    flush_interval_ms_max: Millis = 10_000
    # A transaction costs the log several round trips for each partition; under steady load the next one waits
    # up to four times as long.
    checkpoint_interval_ms: Millis = 250
    # After a kill the partitions stand still this long; shorter ones throw out workers that only paused.
    session_timeout_s: Annotated[float, Meta(gt=0.0)] = 10.0
    # Everybody stands still until the last one has heard of a rebalance in its heartbeat's answer, so it is
    # short; never more than a third of the session, so that two may get lost.
    heartbeat_s: Annotated[float, Meta(gt=0.0)] = 0.3
    # Keep the place in the group over a restart within the session: the others do not stand still.
    static_membership: bool = False
    # A reader of the tables that slept for longer reads them anew; an erased user is in the feed so long.
    feed_keep_s: Seconds = 60.0
    # Erased users leave the disk's files by reading and writing them whole: at most this often.
    wipe_interval_s: Seconds = 600.0
    # Of one partition in one fetch: some 10,000 JSON events, which are folded in well under a second.
    fetch_bytes_max: Size = 1 * MIB


class QuerydSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One query daemon. Times in the unit named last."""

    # On this machine only: access keys are asked for as soon as others can reach it.
    http: Address = "127.0.0.1:8080"
    # Keys and their roles; empty = none, which is allowed on loopback only.
    keys_file: str = ""
    # Requests a second of one key; 0 = no limit.
    rate_limit_per_s: Annotated[float, Meta(ge=0.0)] = 0.0
    # A Qdrant server; none = the embedded engine, right up to a few million vectors.
    qdrant_url: str | None = None
    # How often the daemon looks for new rows: a look that finds none takes 0.2 ms.
    catch_up_interval_ms: Annotated[int, Meta(ge=1)] = 5
    # Behind by more than this, /readyz says no and replies say how old they are.
    lag_ms_max: Millis = 10_000
    # Cells in memory, and rows of the tables, that the exact counts of cohorts in one query may sum. Beyond,
    # counts are estimated and the reply says so. 0 = as many as half of the schema's deadline is enough for.
    cohort_rows_max: Annotated[int, Meta(ge=0)] = 0
    cohort_cold_rows_max: Annotated[int, Meta(ge=0)] = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All sections; each is a table of ``tidal.toml``."""

    site: SiteSettings = SiteSettings()
    brokers: BrokerSettings = BrokerSettings()
    log: LogSettings = LogSettings()
    topics: TopicSettings = TopicSettings()
    producer: ProducerSettings = ProducerSettings()
    worker: WorkerSettings = WorkerSettings()
    queryd: QuerydSettings = QuerydSettings()


def load_settings(
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    env: Mapping[str, str] | None = None,
    toml_path: Path | None = DEFAULT_FILE,
) -> tuple[Settings, dict[str, str]]:
    """The settings, and where each came from.

    Args:
        flags: values by section and name; None = the flag was not given.
        env: the environment; ``os.environ`` by default.
        toml_path: a file that need not exist; None = no file.

    Returns:
        The settings, and by ``section.name``: ``flag``, the variable's name, the file's path, or ``default``.

    Raises:
        SettingsError: with every value that cannot be used, its source and the expected type.
    """
    return load_sections(Settings, flags, env, toml_path)
