"""Locks for machines that share a disk.

    import mxlock

    with mxlock.connect() as client, client.lock("nightly-backup", timeout=5) as lock:
        print("fencing token", lock.token)

docs/python.md has the details.
"""

from ._client import Client, Lock, Pending, connect
from ._errors import (
    Cancelled,
    Deadlock,
    LeaseLost,
    LockConflict,
    LockLost,
    LockTimeout,
    MxlockError,
    NotFound,
    PermissionDenied,
    StorageError,
    Unavailable,
    UsageError,
)
from ._mxlock import __version__
from ._types import (
    Blocking,
    Connected,
    Disconnected,
    Event,
    Flags,
    LeaseEnded,
    LeaseRegained,
    Lost,
    Mode,
)

__all__ = [
    "Blocking",
    "Cancelled",
    "Client",
    "Connected",
    "Deadlock",
    "Disconnected",
    "Event",
    "Flags",
    "LeaseEnded",
    "LeaseLost",
    "LeaseRegained",
    "Lock",
    "LockConflict",
    "LockLost",
    "LockTimeout",
    "Lost",
    "Mode",
    "MxlockError",
    "NotFound",
    "Pending",
    "PermissionDenied",
    "StorageError",
    "Unavailable",
    "UsageError",
    "__version__",
    "connect",
]
