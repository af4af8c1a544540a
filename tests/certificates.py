"""A certificate authority and a server certificate for this machine, made with the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

TIMEOUT_S = 30


class Certificates(NamedTuple):
    """PEM files; `authority` is what clients trust."""

    authority: Path
    certificate: Path
    private_key: Path


def why_not() -> str | None:
    """Why none can be made here, None if they can."""
    return None if shutil.which("openssl") else "no openssl on the PATH"


def make_certificates(folder: Path) -> Certificates:
    """Takes about 0.1 s: elliptic curves, valid for a day."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(
        "req", "-x509", *curve, "-days", "1", "-subj", "/CN=Test authority", "-keyout", folder / "ca.key",
        "-out", made.authority, "-addext", "basicConstraints=critical,CA:TRUE",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    request = folder / "server.csr"
    _openssl("req", *curve, "-subj", "/CN=localhost", "-keyout", made.private_key, "-out", request)
    extensions = folder / "server.ext"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    _openssl(
        "x509", "-req", "-in", request, "-CA", made.authority, "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-days", "1", "-extfile", extensions, "-out", made.certificate,
    )  # fmt: skip
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=TIMEOUT_S)
