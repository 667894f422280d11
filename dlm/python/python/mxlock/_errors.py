"""What can go wrong. The native part finds these classes by their names."""

__all__ = [
    "Cancelled",
    "Deadlock",
    "LeaseLost",
    "LockConflict",
    "LockLost",
    "LockTimeout",
    "MxlockError",
    "NotFound",
    "PermissionDenied",
    "StorageError",
    "Unavailable",
    "UsageError",
]


class MxlockError(Exception):
    """Base of all errors of this package. Its text is one sentence: what is wrong, where, what to do."""


class LockConflict(MxlockError):
    """The lock is held in a conflicting mode, and the request does not wait (``timeout=0``)."""


class LockTimeout(LockConflict, TimeoutError):
    """The lock is held in a conflicting mode, and the time to wait has run out."""


class Deadlock(MxlockError):
    """The request would wait for itself: give up what you hold, and start again. A conversion keeps its old mode."""


class Cancelled(MxlockError):
    """The request was cancelled."""


class LockLost(MxlockError):
    """A lock has ended without this client's doing: stop what it protects."""


class LeaseLost(LockLost):
    """The node's lease has ended, and its locks with it: stop what they protect."""


class StorageError(MxlockError):
    """The lock's record cannot be written to the lockstate: I/O error, no free slot, or damage."""


class NotFound(MxlockError):
    """There is no such orphan."""


class PermissionDenied(MxlockError, PermissionError):
    """This user may not use the daemon's socket, or may not do this."""


class Unavailable(MxlockError, ConnectionError):
    """No daemon answers, it refuses, or it cannot serve the request now."""


class UsageError(MxlockError, ValueError):
    """The call contradicts itself, or the client is closed or another process's."""
