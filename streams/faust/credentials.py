"""Faust's form of the security with which this process reaches the log."""

from __future__ import annotations

from faust import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from streams.broker_security import broker_security


def broker_credentials() -> CredentialsT | None:
    """None where neither login nor TLS is asked for. Raises BrokerSecurityError."""
    security = broker_security()
    context = security.tls_context() if security.has_tls else None
    if security.has_login:
        return SASLCredentials(
            username=security.user,
            password=security.password,
            ssl_context=context,
            mechanism=security.mechanism,
        )
    return SSLCredentials(context) if context is not None else None
