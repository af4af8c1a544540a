"""How clients reach the log: the settings' combinations, and that no client goes another way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.settings import BrokerSettings
from streams.broker_security import (
    BrokerSecurity,
    broker_options,
    broker_security,
    security_of,
    use_broker_security,
)
from streams.errors import BrokerSecurityError
from streams.faust.credentials import broker_credentials

ROOT = Path(__file__).resolve().parents[3]
CODE = ("streams", "materializers", "queryd", "tidal")
LOGIN = BrokerSecurity(protocol="sasl_ssl", user="alice", password="a password of hers")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    use_broker_security(None)


def test_without_settings_clients_connect_plainly() -> None:
    use_broker_security(BrokerSecurity())
    assert broker_options("h:1") == {"bootstrap.servers": "h:1"}
    assert broker_credentials() is None


def test_a_login_over_tls() -> None:
    use_broker_security(LOGIN)
    assert broker_options("h:1") == {
        "bootstrap.servers": "h:1",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": "a password of hers",
    }
    credentials = broker_credentials()
    assert credentials is not None
    assert credentials.protocol.value == "SASL_SSL"
    assert "password" not in repr(LOGIN) + repr(credentials)


def test_tls_alone(tmp_path: Path) -> None:
    use_broker_security(BrokerSecurity(protocol="ssl", ca_file=str(tmp_path / "ca.pem")))
    assert broker_options("h:1") == {
        "bootstrap.servers": "h:1",
        "security.protocol": "ssl",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
    }
    with pytest.raises(BrokerSecurityError, match=r"ca\.pem cannot be used"):
        broker_credentials()
    use_broker_security(BrokerSecurity(protocol="ssl"))
    credentials = broker_credentials()
    assert credentials is not None
    assert credentials.protocol.value == "SSL"


def test_the_environment_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("a password of hers\n")
    monkeypatch.chdir(tmp_path)
    for name, value in (("SECURITY", "sasl_ssl"), ("USER", "alice"), ("PASSWORD_FILE", "password")):
        monkeypatch.setenv(f"TIDAL_BROKERS_{name}", value)
    use_broker_security(None)
    assert broker_security() == LOGIN


@pytest.mark.parametrize(
    "settings, what",
    [
        (BrokerSettings(security="sasl_ssl", user="alice"), r"brokers\.password_file"),
        (BrokerSettings(security="sasl_ssl", password="x"), r"set brokers\.user"),
        (BrokerSettings(user="alice"), "nobody would be told"),
        (BrokerSettings(security="ssl", ca_file="/missing"), "there is no file /missing"),
        (BrokerSettings(security="sasl_ssl", user="a", password_file="/missing"), "cannot be read"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: BrokerSettings, what: str) -> None:
    with pytest.raises(BrokerSecurityError, match=what):
        security_of(settings)


def test_every_client_asks_for_the_security() -> None:
    """A client that names its brokers by itself would work at home and fail at a secured log."""
    own_way = [
        str(path.relative_to(ROOT))
        for package in CODE
        for path in (ROOT / package).rglob("*.py")
        if "bootstrap.servers" in path.read_text() and path.name != "broker_security.py"
    ]
    assert own_way == []
