"""Declarations only: entities, signals, cohorts, profiles, and the encodings of records and keys."""
