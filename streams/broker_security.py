"""How this process's clients reach the log: plainly, by TLS, with a user and a password.

Every client of the log begins with `broker_options(brokers)`, so that one setting (`[brokers]`,
`TIDAL_BROKERS_*`) serves producers, readers, workers, queryd and the command line alike. A program that
has its own settings calls `use_broker_security` before it opens a client.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from schemas.settings import BrokerSettings, load_settings
from streams.errors import BrokerSecurityError


class BrokerSecurity(msgspec.Struct, frozen=True, kw_only=True):
    """Protocol and mechanism under Kafka's names; `ca_file` (PEM): whose certificates are trusted."""

    protocol: str = "plaintext"
    mechanism: str = "PLAIN"
    user: str = ""
    password: str = ""
    ca_file: str = ""

    @property
    def has_login(self) -> bool:
        return self.protocol.startswith("sasl")

    @property
    def has_tls(self) -> bool:
        return self.protocol.endswith("ssl")

    def __repr__(self) -> str:
        return f"BrokerSecurity(protocol={self.protocol!r}, user={self.user!r})"

    def tls_context(self) -> ssl.SSLContext:
        """What aiokafka asks for: the certificate and the host's name are checked.

        Raises BrokerSecurityError.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise BrokerSecurityError(f"brokers.ca_file {self.ca_file} cannot be used: {error}") from error


_lock = Lock()
_used: BrokerSecurity | None = None


def use_broker_security(security: BrokerSecurity | None) -> None:
    """All clients that this process opens from now on; None: what the settings say."""
    global _used
    with _lock:
        _used = security


def broker_security() -> BrokerSecurity:
    """What clients of this process use. The settings are read once.

    Raises BrokerSecurityError, SettingsError.
    """
    global _used
    with _lock:
        if _used is None:
            _used = security_of(load_settings()[0].brokers)
        return _used


def security_of(settings: BrokerSettings) -> BrokerSecurity:
    """The settings, checked, with the password from its file. Raises BrokerSecurityError."""
    password = settings.password or _read_password(settings.password_file)
    found = BrokerSecurity(
        protocol=settings.security,
        mechanism=settings.mechanism,
        user=settings.user,
        password=password,
        ca_file=settings.ca_file,
    )
    if found.has_login and not (found.user and password):
        raise BrokerSecurityError(
            f"brokers.security is {settings.security}, and a user or password is missing; set brokers.user "
            "and brokers.password_file (TIDAL_BROKERS_USER and TIDAL_BROKERS_PASSWORD_FILE or "
            "TIDAL_BROKERS_PASSWORD)"
        )
    if (found.user or password) and not found.has_login:
        raise BrokerSecurityError(
            f"brokers.user is set, but brokers.security is {settings.security}: nobody would be told; "
            "set brokers.security (TIDAL_BROKERS_SECURITY) to sasl_ssl"
        )
    if found.ca_file and not Path(found.ca_file).is_file():
        raise BrokerSecurityError(f"brokers.ca_file: there is no file {found.ca_file}")
    return found


def broker_options(brokers: str, security: BrokerSecurity | None = None) -> dict[str, Any]:
    """librdkafka's settings for reaching `brokers` (host:port, several divided by commas).

    security: for a log that is not this process's own. Raises BrokerSecurityError, SettingsError.
    """
    security = security or broker_security()
    options = {"bootstrap.servers": brokers}
    if security.protocol != "plaintext":
        options["security.protocol"] = security.protocol
    if security.has_login:
        options |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.user,
            "sasl.password": security.password,
        }
    if security.has_tls and security.ca_file:
        options["ssl.ca.location"] = security.ca_file
    return options


def _read_password(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerSecurityError(f"brokers.password_file {path} cannot be read: {error}") from error
