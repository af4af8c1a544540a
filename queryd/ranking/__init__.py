"""Arithmetic of scores and orders."""
