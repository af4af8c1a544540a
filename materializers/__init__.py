"""Folds of the log: tables of one worker and the views that fill them."""
