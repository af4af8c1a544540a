"""Measurements, each a command; docs/benchmarks.md has their numbers."""
