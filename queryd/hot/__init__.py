"""Columns in memory, kept by the change feed."""
