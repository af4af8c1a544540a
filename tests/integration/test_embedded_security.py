"""A log with users and a certificate: unchanged clients come in with both, nobody without."""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Consumer, Producer

from streams.embedded import EmbeddedLog, ListenError, LogSettings, Security
from streams.embedded.users import parse_users, user_line
from tests import certificates
from tests.certificates import Certificates
from tests.integration.embedded_wire import Wire, api_versions, framed, request, string

pytestmark = pytest.mark.skipif(certificates.why_not() is not None, reason=str(certificates.why_not()))

PASSWORD = "correct horse battery"
LINE = user_line("alice", PASSWORD)
WAIT_S = 20.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make_certificates(tmp_path_factory.mktemp("certificates"))


def security(made: Certificates) -> Security:
    return Security(made.certificate, made.private_key, parse_users([LINE], "users"))


@asynccontextmanager
async def secured(folder: Path, made: Certificates, **options: Any) -> AsyncIterator[EmbeddedLog]:
    log = EmbeddedLog(folder / "log", security=security(made), **options)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


@pytest.fixture
async def log(tmp_path: Path, made: Certificates) -> AsyncIterator[EmbeddedLog]:
    async with secured(tmp_path, made) as running:
        yield running


def aiokafka(log: EmbeddedLog, made: Certificates, password: str = PASSWORD) -> dict[str, Any]:
    return {
        "bootstrap_servers": log.address,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "alice",
        "sasl_plain_password": password,
        "ssl_context": ssl.create_default_context(cafile=str(made.authority)),
    }


def librdkafka(log: EmbeddedLog, made: Certificates, password: str = PASSWORD) -> dict[str, Any]:
    return {
        "bootstrap.servers": log.address,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": password,
        "ssl.ca.location": str(made.authority),
        "log_level": 0,
    }


async def create(log: EmbeddedLog, made: Certificates, name: str) -> None:
    admin = AIOKafkaAdminClient(**aiokafka(log, made))
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()


async def test_aiokafka_with_user_and_certificate(log: EmbeddedLog, made: Certificates) -> None:
    await create(log, made, "t")
    sender = AIOKafkaProducer(**aiokafka(log, made))
    await sender.start()
    # Larger than what a connection may send before its login, and than one TLS record.
    values = [b"small", bytes(700_000)]
    for value in values:
        await sender.send_and_wait("t", value)
    await sender.stop()
    reader = AIOKafkaConsumer("t", auto_offset_reset="earliest", **aiokafka(log, made))
    await reader.start()
    assert [(await reader.getone()).value for _ in range(2)] == values
    await reader.stop()


async def test_confluent_kafka_with_user_and_certificate(log: EmbeddedLog, made: Certificates) -> None:
    await create(log, made, "t")
    values = [b"%d" % number for number in range(100)]

    def run() -> list[bytes | None]:
        sender = Producer({**librdkafka(log, made), "enable.idempotence": True})
        for value in values:
            sender.produce("t", value)
        assert sender.flush(WAIT_S) == 0
        reader = Consumer({**librdkafka(log, made), "group.id": "g", "auto.offset.reset": "earliest"})
        reader.subscribe(["t"])
        found: list[bytes | None] = []
        while len(found) < len(values):
            found += [message.value() for message in reader.consume(100, WAIT_S)]
        reader.close()
        return found

    assert await asyncio.to_thread(run) == values


async def test_a_wrong_password_is_told(
    log: EmbeddedLog, made: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[str] = []
    options = {**librdkafka(log, made, "wrong horse battery"), "error_cb": lambda e: errors.append(e.str())}

    def run() -> None:
        client = Producer(options)
        deadline_s = time.monotonic() + WAIT_S
        while not errors and time.monotonic() < deadline_s:
            client.poll(0.1)

    await asyncio.to_thread(run)
    assert any("user or password is wrong" in error for error in errors)
    assert log._broker is not None
    assert log._broker.measures.closed["login_failed"] > 0
    assert "correct" not in caplog.text


async def test_a_plain_client_and_one_that_trusts_others_get_nothing(
    log: EmbeddedLog, made: Certificates
) -> None:
    wire = await Wire.open(log)
    wire.send(api_versions())
    # Nothing, or a TLS alert; no answer of the protocol.
    assert len(await wire.closed()) < 10
    stranger = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(log.host, log.port, ssl=stranger)


async def over_tls(log: EmbeddedLog, made: Certificates) -> Wire:
    context = ssl.create_default_context(cafile=str(made.authority))
    return Wire(*await asyncio.open_connection(log.host, log.port, ssl=context))


HANDSHAKE = request(17, 1, 1, string("PLAIN"))
METADATA = request(3, 1, 9, struct.pack(">i", -1))


@pytest.mark.parametrize(
    "payload",
    [
        METADATA,
        HANDSHAKE + METADATA,
        # The answer to the second request must not overtake the login, nor may it be served before.
        HANDSHAKE + request(36, 1, 2, struct.pack(">i", 8) + b"\0alice\0x") + METADATA,
        # A login has no megabytes.
        framed(bytes(65_537))[:100],
    ],
)
async def test_nothing_is_served_before_the_login(
    log: EmbeddedLog, made: Certificates, payload: bytes
) -> None:
    wire = await over_tls(log, made)
    wire.send(payload)
    answers = await wire.closed()
    assert struct.pack(">i", 9) not in answers
    assert b"127.0.0.1" not in answers


async def test_requests_behind_a_good_login_are_served_in_order(log: EmbeddedLog, made: Certificates) -> None:
    wire = await over_tls(log, made)
    token = f"\0alice\0{PASSWORD}".encode()
    wire.send(HANDSHAKE + request(36, 1, 2, struct.pack(">i", len(token)) + token) + METADATA)
    assert [(await wire.answer())[0] for _ in range(3)] == [1, 2, 9]


async def test_who_does_not_log_in_is_shown_out(tmp_path: Path, made: Certificates) -> None:
    async with secured(tmp_path, made, settings=LogSettings(login_timeout_s=0.3)) as log:
        wire = await over_tls(log, made)
        silent = await Wire.open(log)
        wire.send(api_versions())
        assert (await wire.answer())[0] == 7
        assert await wire.closed() == b""
        assert await silent.closed() == b""


async def test_all_addresses_need_a_name_to_be_called(tmp_path: Path, made: Certificates) -> None:
    with pytest.raises(ListenError, match=r"log\.advertise"):
        await EmbeddedLog(tmp_path, "0.0.0.0", security=security(made)).start()
    log = EmbeddedLog(tmp_path, "0.0.0.0", security=security(made), advertise="localhost")
    await log.start()
    try:
        assert log.address == f"localhost:{log.port}"
        admin = AIOKafkaAdminClient(**aiokafka(log, made))
        await admin.start()
        described = await admin.describe_cluster()
        assert [(node["host"], node["port"]) for node in described["brokers"]] == [("localhost", log.port)]
        await admin.close()
    finally:
        await log.stop()


async def test_a_certificate_of_no_use_is_named(tmp_path: Path, made: Certificates) -> None:
    wrong = security(made)._replace(private_key=made.authority)
    with pytest.raises(ListenError, match=r"ca\.pem cannot be used"):
        await EmbeddedLog(tmp_path, security=wrong).start()
