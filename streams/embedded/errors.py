"""What can go wrong in the embedded log.

EmbeddedLogError
├── ListenError           the log may not listen on an address, or not with this certificate
├── UsersError            a file of users cannot be used, or a name or password is not taken
├── LogFolderError        the data folder cannot be used (locked, not a log, not writable)
├── CorruptBatchError     a batch that the log refuses; carries the protocol's error name
├── SequenceError         an idempotent producer's batch out of order or fenced; carries the error name
└── RequestError          bytes that are no request of the protocol; the connection is closed
"""

from __future__ import annotations

from schemas.errors import TidalError


class EmbeddedLogError(TidalError):
    """Base of all errors of the embedded log."""


class LogFolderError(EmbeddedLogError):
    """The data folder cannot be opened as a log."""


class ListenError(EmbeddedLogError):
    """An address that other machines can reach without a password, or a certificate of no use."""


class UsersError(EmbeddedLogError):
    """A file of users, a user's name or a password is not as it must be."""


class ProtocolRefusalError(EmbeddedLogError):
    """Something is refused with an error of the Kafka protocol.

    `code` is the name of that error as kio spells it, e.g. "corrupt_message".
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class CorruptBatchError(ProtocolRefusalError):
    """A record batch is damaged or not of a kind that the log keeps."""


class SequenceError(ProtocolRefusalError):
    """A batch does not continue its producer's sequence, or its producer has been fenced."""


class RequestError(EmbeddedLogError):
    """The bytes of a connection are not a request."""
