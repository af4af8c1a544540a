"""The `tidal` command: one file for each command or group of commands, registered in `main`."""
