"""The settings of this command line: flags, then TIDAL_*, then tidal.toml, then defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from schemas.errors import SettingsError
from schemas.settings import Settings, load_settings
from tidal.cli.failure import UsageError

Flags: TypeAlias = Mapping[str, Mapping[str, Any]]


def effective_settings(flags: Flags | None = None) -> Settings:
    """The settings with these flags on top; a flag of None was not given."""
    return settings_with_origins(flags)[0]


def settings_with_origins(flags: Flags | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings, and where each `section.name` came from. Raises UsageError with every bad value."""
    for section, values in (flags or {}).items():
        for name, value in values.items():
            # An empty one is mostly an unset shell variable, and would mean another log or another schema.
            if value == "":
                raise UsageError(f"{section}.{name} is given and empty", do="name it, or leave its flag out")
    try:
        return load_settings(flags)
    except SettingsError as error:
        raise UsageError(str(error), do="see `tidal config show --help`") from error
