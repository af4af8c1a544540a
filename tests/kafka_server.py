"""A real Apache Kafka, run from the jars that Maven Central publishes: KRaft, one node, both roles.

The jars are kept in $TIDAL_KAFKA_LIBS, or else in the user's cache folder, where the first run puts them
(45 MB). Needs Java 17 and, for that first run, Maven.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from tests.server_process import ServerProcess, free_port

KAFKA_VERSION = "4.1.0"
POM = Path(__file__).resolve().parent / "kafka" / "pom.xml"
DOWNLOAD_TIMEOUT_S = 600
FORMAT_TIMEOUT_S = 60
START_TIMEOUT_S = 60

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={log_dir}
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=100
group.min.session.timeout.ms=500
auto.create.topics.enable=false
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=250
"""
# By default transactions past their time-out are looked for every ten seconds. The last two: a killed broker
# may register again only when its former session has ended, 9 s by default.


def why_not() -> str | None:
    """Why a real Kafka cannot run here, in one line; None if it can."""
    if shutil.which("java") is None:
        return "no java on the PATH (Java 17 is needed)"
    if not _is_complete(libs_dir()) and shutil.which("mvn") is None:
        return f"no Kafka jars in {libs_dir()} and no mvn on the PATH to get them"
    return None


def libs_dir() -> Path:
    """Where the jars are or will be."""
    named = os.environ.get("TIDAL_KAFKA_LIBS")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tidal" / f"kafka-{KAFKA_VERSION}-streams"


def ensure_libs() -> Path:
    """The folder with the jars, downloaded first if need be; safe when several test runs do it at once."""
    libs = libs_dir()
    if _is_complete(libs):
        return libs
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=libs.parent) as fresh:
        # Away from the sources: Maven makes a target folder beside the pom.
        shutil.copy(POM, fresh)
        jars = Path(fresh) / "libs"
        subprocess.run(
            ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
            cwd=fresh,
            check=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
        try:
            jars.rename(libs)
        except OSError:
            # Another run was faster and has put the same jars there.
            if not _is_complete(libs):
                raise
    return libs


def _is_complete(libs: Path) -> bool:
    return any(libs.glob(f"kafka_2.13-{KAFKA_VERSION}.jar"))


class KafkaServer(ServerProcess):
    """One node with its own folder and ports."""

    def __init__(self, folder: Path) -> None:
        libs = ensure_libs()
        self.port = free_port()
        properties = folder / "server.properties"
        properties.write_text(
            PROPERTIES.format(port=self.port, controller_port=free_port(), log_dir=folder / "data")
        )
        _format_storage(libs, properties)
        super().__init__(
            [
                "java",
                "-Xmx512m",
                "-cp",
                f"{libs}/*",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "kafka.Kafka",
                str(properties),
            ],
            self.port,
            folder / "kafka.out",
            START_TIMEOUT_S,
        )


def _format_storage(libs: Path, properties: Path) -> None:
    # Without the highest bit it never begins with a dash, which the tool would take for an option.
    number = uuid.uuid4().int & ~(1 << 127)
    cluster_id = base64.urlsafe_b64encode(number.to_bytes(16, "big")).rstrip(b"=").decode()
    subprocess.run(
        [
            "java",
            "-cp",
            f"{libs}/*",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster_id,
            "-c",
            str(properties),
        ],
        check=True,
        capture_output=True,
        timeout=FORMAT_TIMEOUT_S,
    )
