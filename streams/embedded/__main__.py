"""`python -m streams.embedded --data DIR --listen HOST:PORT`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from streams.embedded.embedded_log import EmbeddedLog, run
from streams.embedded.errors import EmbeddedLogError


def main() -> int:
    """Serve one data folder until a signal; 2 when it cannot be used."""
    parser = argparse.ArgumentParser(
        prog="streams.embedded", description="Serve a log with the Kafka protocol."
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder, made if missing")
    parser.add_argument("--listen", default="127.0.0.1:9092", help="HOST:PORT, port 0 takes a free one")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    host, _, port = arguments.listen.rpartition(":")
    try:
        run(
            EmbeddedLog(arguments.data, host.strip("[]") or "127.0.0.1", int(port)),
            on_ready=lambda address: print(f"listening on {address}", flush=True),
        )
    except (EmbeddedLogError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
