"""A clean fold of a log in plain Python: what every table must equal, written from the specification.

Nothing here shares code with the views. It is slow, and small enough to be seen to be right.
"""

from tests.oracle.fold import CleanFold, Edge, Preference, fold
from tests.oracle.records import Event, LogRecord, Reject

__all__ = ["CleanFold", "Edge", "Event", "LogRecord", "Preference", "Reject", "fold"]
