"""A clean fold of the log beside the running tables: ``tidal verify`` compares it, ``tidal rebuild`` swaps it
in.
"""
