"""Who may reach a log: this machine without further ado, others by SASL/PLAIN over TLS only."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from streams.embedded.errors import ListenError
from streams.embedded.users import Users


class Security(NamedTuple):
    """A certificate chain and its key (PEM), and those who may log in."""

    certificate: Path
    private_key: Path
    users: Users


def tls_context(security: Security) -> ssl.SSLContext:
    """TLS 1.2 and later with the certificate. Raises ListenError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(security.certificate, security.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ListenError(
            f"certificate {security.certificate} and key {security.private_key} cannot be used: {error}"
        ) from error
    return context


def check_exposure(host: str, advertised: str, security: Security | None) -> None:
    """Raises ListenError where anybody could read and write, or where no client could find the way back."""
    if security is None and not is_loopback(host):
        raise ListenError(
            f"{host}: without users and a certificate the log listens on loopback only (127.0.0.1, ::1); "
            "set log.certificate_file, log.private_key_file and log.users_file (TIDAL_LOG_CERTIFICATE_FILE, "
            "TIDAL_LOG_PRIVATE_KEY_FILE, TIDAL_LOG_USERS_FILE) to listen elsewhere"
        )
    if is_wildcard(host) and not advertised:
        raise ListenError(
            f"{host} is no address that a client can connect to; set log.advertise (TIDAL_LOG_ADVERTISE) to "
            "this machine's name as the certificate has it"
        )


def is_loopback(host: str) -> bool:
    """Can only this machine reach it?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Does it stand for all addresses of this machine?"""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host
