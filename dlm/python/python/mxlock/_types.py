"""Modes, flags and events."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Union

if TYPE_CHECKING:
    from ._client import Lock

__all__ = ["Blocking", "Connected", "Disconnected", "Event", "Flags", "LeaseEnded", "LeaseRegained", "Lost", "Mode"]


class Mode(enum.IntEnum):
    """The six modes of the VMS lock manager, weakest first. (PR and CW are incomparable.)"""

    NL = 0
    """Null: holds a place, conflicts with nothing."""
    CR = 1
    """Concurrent read: conflicts with EX."""
    CW = 2
    """Concurrent write: conflicts with PR, PW and EX."""
    PR = 3
    """Protected read, "shared": conflicts with CW, PW and EX."""
    PW = 4
    """Protected write: conflicts with all but NL and CR."""
    EX = 5
    """Exclusive: conflicts with all but NL."""


class Flags(enum.IntFlag):
    """Options of requests and conversions, as in the kernel DLM; docs/features.md describes them."""

    NONE = 0
    NOQUEUE = 1 << 0
    NOQUEUEBAST = 1 << 1
    QUECVT = 1 << 2
    CONVDEADLK = 1 << 3
    NODLCKWT = 1 << 4
    NOORDER = 1 << 5
    EXPEDITE = 1 << 6
    HEADQUE = 1 << 7
    ALTPR = 1 << 8
    ALTCW = 1 << 9
    PERSISTENT = 1 << 10
    NODLCKBLK = 1 << 11
    TRANSIENT = 1 << 13
    IVVALBLK = 1 << 14
    OWN = 1 << 15


@dataclass(frozen=True)
class Blocking:
    """Somebody waits for a lock that this one blocks: a blocking notice (BAST)."""

    lock: Lock
    """The lock that is in the way."""
    wanted: Mode
    """The weakest mode that covers all that are wanted."""


@dataclass(frozen=True)
class Lost:
    """A lock has ended without this client's doing."""

    lock: Lock
    """The lock."""
    reason: str
    """Why, for people."""


@dataclass(frozen=True)
class LeaseEnded:
    """No lock may be relied on: the node's lease has ended. They may come back (:class:`LeaseRegained`)."""


@dataclass(frozen=True)
class LeaseRegained:
    """The lease is there again: the locks that were not reported as lost stand as before."""


@dataclass(frozen=True)
class Disconnected:
    """The connection is lost; the client connects again by itself. Locks stand until the lease's deadline."""


@dataclass(frozen=True)
class Connected:
    """The connection is there again."""


Event = Union[Blocking, Lost, LeaseEnded, LeaseRegained, Disconnected, Connected]
"""What :meth:`mxlock.Client.poll_events` reports."""


def link_event(kind: str) -> Optional[Event]:
    """The event of this kind that concerns no lock; ``None`` for one that this version does not know."""
    kinds: dict[str, Event] = {
        "lease-lost": LeaseEnded(),
        "lease-regained": LeaseRegained(),
        "disconnected": Disconnected(),
        "reconnected": Connected(),
    }
    return kinds.get(kind)
