"""Proofs that after any kill, pause, wipe or move the tables equal one clean fold of the log."""
