"""Counts of a cohort that would take too long to sum: estimated, with a bound, and said so."""
