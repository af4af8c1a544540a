"""What can go wrong on the client side of the log.

StreamError
├── PositionError             a position token that is damaged or not one
├── BrokerUnavailableError    no broker answered in time
├── BrokerSecurityError       user, password or certificate for the log do not fit together
├── TopicError                a topic is missing or not as it must be
│   └── TopicMismatchError    existing topics differ in a way that no command of ours may change
├── ProducerClosedError       publish after close
├── QueueFullError            the bounded buffer stayed full for longer than the caller may wait
├── DeliveryError             the log refused a record, or did not acknowledge it in time
├── MirrorError               a log cannot be copied with its offsets kept
└── OffsetError               a reader's start offset is beyond what the log holds
"""

from __future__ import annotations

from schemas.errors import TidalError


class StreamError(TidalError):
    """Base of all errors of the log's clients."""


class PositionError(StreamError, ValueError):
    """A text is not a position token."""


class BrokerUnavailableError(StreamError):
    """No broker answered within the time allowed."""


class BrokerSecurityError(StreamError):
    """The settings with which the log is reached do not fit together or cannot be read."""


class TopicError(StreamError):
    """A topic is missing, or is not as the engine needs it."""


class TopicMismatchError(TopicError):
    """Existing topics differ from what is wanted in a way that cannot be changed without losing order."""


class ProducerClosedError(StreamError):
    """The producer has been closed; nothing more can be published with it."""


class QueueFullError(StreamError):
    """The producer's buffer stayed full: the log acknowledges more slowly than events arrive, or is away."""


class DeliveryError(StreamError):
    """The log did not acknowledge a record.

    `retriable` tells whether publishing the same event again may help (a time-out does not prove that the
    log has not stored the record; the dedup horizon removes the second copy of an event).
    """

    def __init__(self, message: str, *, retriable: bool) -> None:
        super().__init__(message)
        self.retriable = retriable


class MirrorError(StreamError):
    """A log cannot be copied into another with its offsets kept, or the copy is not the same."""


class OffsetError(StreamError):
    """A start offset does not exist in the log that is being read."""
