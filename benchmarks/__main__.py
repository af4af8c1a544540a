"""Every benchmark, one after the other: `python -m benchmarks [--short] [--json FOLDER]`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "log", "log_limits", "ingest", "freshness", "query", "views", "user_reads", "memory_site", "refold",
    "cohorts", "segments", "estimator", "relative",
)  # fmt: skip
HAVE_SHORT_FORM = frozenset(BENCHMARKS) - {"query", "views"}


def main() -> int:
    """Runs them; the exit code is 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few seconds for each")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write each outcome to FOLDER too")
    chosen = parser.parse_args()
    failed = []
    for name in BENCHMARKS:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if name in HAVE_SHORT_FORM:
            command += ["--short"] if chosen.short else []
            command += ["--json", str(chosen.json / f"{name}.json")] if chosen.json else []
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command
            failed.append(name)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
