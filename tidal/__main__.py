"""`python -m tidal` is the `tidal` command."""

from __future__ import annotations

from tidal.cli.main import main

main()
