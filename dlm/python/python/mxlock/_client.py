"""Clients, requests and locks."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import weakref
from types import TracebackType
from typing import Optional, Union

from . import _errors
from ._errors import LockLost, MxlockError
from ._mxlock import Session
from ._types import Blocking, Event, Flags, Lost, Mode, link_event

__all__ = ["Client", "Lock", "Pending", "connect"]

Name = Union[str, bytes]
Range = tuple[int, Optional[int]]

_WHOLE = (1 << 64) - 1
_CLOSE_TIMEOUT = 5.0


def connect(
    lockspace: str = "default",
    *,
    socket: Union[str, os.PathLike[str], None] = None,
    connect_timeout: float = 10.0,
) -> Client:
    """Connects to the daemon of this machine and opens a session.

    The socket is ``socket``, else ``$MXLOCK_SOCKET``, else ``/run/mxlock/LOCKSPACE/sock``, else the one under
    ``$XDG_RUNTIME_DIR``. Raises :class:`Unavailable` or :class:`PermissionDenied`.
    """
    return Client(lockspace, socket=socket, connect_timeout=connect_timeout)


class Client:
    """A session with the daemon. Threads may share it, and lock against each other.

    A thread of its own takes in what the daemon says: it connects again when the daemon was restarted, and notices when
    the lease is lost. Closing the client, or leaving its ``with`` block, releases its locks. After :func:`os.fork` the
    client is the parent's: calls of the child raise :class:`UsageError`.
    """

    def __init__(
        self,
        lockspace: str = "default",
        *,
        socket: Union[str, os.PathLike[str], None] = None,
        connect_timeout: float = 10.0,
    ) -> None:
        self._session = Session(lockspace, socket, connect_timeout)
        self._owner = threading.local()
        self._locks: weakref.WeakValueDictionary[int, Lock] = weakref.WeakValueDictionary()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> bool:
        """Ends the session; its locks are released. False: the daemon has not confirmed it within ``timeout`` seconds.

        Calls that wait in other threads raise :class:`UsageError`. A second call does nothing.
        """
        return self._session.close(timeout)

    def lock(
        self,
        name: Name,
        *,
        mode: Mode = Mode.EX,
        timeout: Optional[float] = None,
        range: Optional[Range] = None,
        namespace: Name = b"",
        flags: Flags = Flags.NONE,
        transaction: Optional[int] = None,
        orphan: Optional[float] = None,
        persistent: bool = False,
    ) -> Lock:
        """Takes a lock and waits for it.

        ``timeout``: seconds; ``None`` waits for ever, 0 not at all. ``range``: only these bytes, both ends included,
        ``(first, None)`` without an end. ``transaction``: the owner for deadlock detection, by default the calling
        thread with this client; the same number is the same owner on all nodes.
        ``orphan``: the lock outlives this process for so many seconds, until it is adopted. ``persistent``: it
        outlives even the node.

        Raises :class:`LockConflict` when it is held and the request does not wait, :class:`LockTimeout`,
        :class:`Deadlock`, :class:`StorageError`, :class:`Unavailable`; and :class:`LeaseLost` or :class:`LockLost` when
        locks that this client holds are lost meanwhile. After any exception, also :class:`KeyboardInterrupt`, the
        request is withdrawn.
        """
        seq = self._ask(name, mode, timeout, range, namespace, flags, transaction, orphan, persistent)
        return Pending(self, seq, name, timeout).wait()

    def try_lock(self, name: Name, *, mode: Mode = Mode.EX, namespace: Name = b"") -> Optional[Lock]:
        """Takes a lock if that is possible without waiting; ``None`` when it is not."""
        try:
            return self.lock(name, mode=mode, namespace=namespace, timeout=0)
        except _errors.LockConflict:
            return None

    def submit(
        self,
        name: Name,
        *,
        mode: Mode = Mode.EX,
        timeout: Optional[float] = None,
        range: Optional[Range] = None,
        namespace: Name = b"",
        flags: Flags = Flags.NONE,
        transaction: Optional[int] = None,
        orphan: Optional[float] = None,
        persistent: bool = False,
    ) -> Pending:
        """Asks for a lock and waits for nothing. The arguments are those of :meth:`lock`.

        While the request waits, the caller may release what it holds: the request counts for no deadlock (NODLCKWT).
        """
        flags |= Flags.NODLCKWT
        seq = self._ask(name, mode, timeout, range, namespace, flags, transaction, orphan, persistent)
        return Pending(self, seq, name, timeout)

    def _ask(
        self,
        name: Name,
        mode: Mode,
        timeout: Optional[float],
        range: Optional[Range],
        namespace: Name,
        flags: Flags,
        transaction: Optional[int],
        orphan: Optional[float],
        persistent: bool,
    ) -> int:
        first_last = None if range is None else (range[0], _WHOLE if range[1] is None else range[1])
        owner = self._thread() if transaction is None else transaction
        return self._session.submit_lock(
            _bytes(namespace), _bytes(name), mode, flags, first_last, timeout, owner, orphan, persistent
        )

    def _thread(self) -> int:
        """An owner of its own for each thread: else a thread that waits for another one would wait for itself."""
        owner: Optional[int] = getattr(self._owner, "number", None)
        if owner is None:
            # Transaction ids are the same in the whole cluster: by chance, none is met twice. 0 is none.
            owner = self._owner.number = secrets.randbits(63) + 1
        return owner

    def adopt(self, name: Name, *, mode: Mode = Mode.EX, namespace: Name = b"", persistent: bool = False) -> Lock:
        """Takes over the orphan that holds ``name`` in ``mode``. Raises :class:`NotFound` when there is none."""
        seq = self._session.submit_adopt(_bytes(namespace), _bytes(name), mode, persistent)
        return Pending(self, seq, name, 0.0).wait()

    def poll_events(self, timeout: Optional[float] = 0.0) -> list[Event]:
        """The events so far; waits up to ``timeout`` seconds (``None``: for ever) until there is one.

        An empty list: the time is over, or the client was closed.
        """
        events: list[Event] = []
        for kind, seq, mode, reason in self._session.events(timeout):
            lock = self._locks.get(seq)
            if kind == "bast":
                if lock is not None:
                    events.append(Blocking(lock, Mode(mode)))
            elif kind == "lost":
                if lock is not None:
                    events.append(Lost(lock, reason))
            else:
                event = link_event(kind)
                if event is not None:
                    events.append(event)
        return events

    def fileno(self) -> int:
        """A descriptor for select, poll or an event loop: readable while :meth:`poll_events` has something. Do not read
        from it."""
        return self._session.fileno()

    @property
    def node(self) -> Optional[int]:
        """The node of the daemon, 0 to 63."""
        return self._session.node()

    @property
    def lease_valid(self) -> bool:
        """Whether the node's lease runs at this moment."""
        return self._session.lease_valid()

    @property
    def connected(self) -> bool:
        """Whether the connection to the daemon stands."""
        return self._session.is_connected()


class Pending:
    """A request for a lock. It goes on until it is waited for or cancelled."""

    def __init__(self, client: Client, seq: int, name: Name, timeout: Optional[float]) -> None:
        self._client = client
        self._seq = seq
        self._name = name
        self._timeout = timeout
        self._lock: Optional[Lock] = None

    def done(self) -> bool:
        """Whether :meth:`wait` returns, or raises, at once."""
        return self._lock is not None or self._client._session.is_answered(self._seq, 0)

    def wait(self) -> Lock:
        """Waits for the lock, as long as the request's own timeout says. Raises what :meth:`Client.lock` raises."""
        if self._lock is None:
            session = self._client._session
            try:
                mode, token, value, valid, _ = session.wait(self._seq, 0, self._timeout, _shown(self._name))
            except BaseException:
                session.abandon(self._seq)
                raise
            self._lock = Lock(self._client, self._seq, self._name, Mode(mode), token, value, valid)
        return self._lock

    def cancel(self) -> None:
        """Withdraws the request; a lock that was granted meanwhile is released."""
        self._client._session.abandon(self._seq)


class Lock:
    """A lock that is held until it is released, its ``with`` block is left, or its client is closed.

    (Not until it is collected as garbage: that would be at no time that a reader of the program can see.)
    """

    def __init__(
        self, client: Client, seq: int, name: Name, mode: Mode, token: int, value: Optional[bytes], valid: bool
    ) -> None:
        self._client = client
        self._seq = seq
        self._name = name
        self._mode = mode
        self._token = token
        self._value = value
        self._value_valid = valid
        self._demoted = False
        self._released = False
        client._locks[seq] = self

    def __repr__(self) -> str:
        state = "released" if self._released else "held"
        return f"<mxlock.Lock {_shown(self._name)!r} {self._mode.name} token={self._token} {state}>"

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._released:
            return
        try:
            self.release()
        except MxlockError:
            # What went wrong in the block says more than what it led to.
            if error is None:
                raise

    @property
    def name(self) -> Name:
        """What is locked."""
        return self._name

    @property
    def mode(self) -> Mode:
        """The mode that is held."""
        return self._mode

    @property
    def demoted(self) -> bool:
        """Whether the last conversion gave up the mode that was held before (``Flags.CONVDEADLK``): others may have held
        the lock in between."""
        return self._demoted

    @property
    def token(self) -> int:
        """The fencing token: hand it to whatever the lock protects, and let that refuse smaller ones."""
        return self._token

    @property
    def value(self) -> Optional[bytes]:
        """The value block as the last grant read it: 1 to 64 bytes, where there is one and the mode reads it."""
        return self._value

    @property
    def value_valid(self) -> bool:
        """False: a holder of PW or EX died or took the value back; it may be out of date."""
        return self._value_valid

    @property
    def lost(self) -> Optional[str]:
        """Why the lock has ended without this client's doing, if it has."""
        if self._released:
            return None
        loss = self._client._session.loss(self._seq)
        return None if loss is None else loss[1]

    def valid(self) -> bool:
        """Whether the lock may be relied on at this moment: a look at memory and the clock. Ask before every step that
        the lock protects."""
        return not self._released and self._client._session.is_valid(self._seq)

    def check(self) -> None:
        """Raises :class:`LeaseLost` or :class:`LockLost` when the lock may not be relied on."""
        if self.valid():
            return
        self._not_released()
        loss = self._client._session.loss(self._seq)
        if loss is not None:
            raise self._error(*loss)
        raise _errors.LeaseLost(f"the node's lease has ended, and the lock on '{_shown(self._name)}' with it")

    def convert(
        self,
        mode: Mode,
        *,
        timeout: Optional[float] = None,
        value: Optional[bytes] = None,
        flags: Flags = Flags.NONE,
    ) -> None:
        """Changes the mode and waits for it. ``value``: on the way down from PW or EX, the new value block.

        Raises what :meth:`Client.lock` raises; after :class:`LockConflict`, :class:`LockTimeout` and :class:`Deadlock`
        the lock is held as before, or with ``Flags.CONVDEADLK`` perhaps in NL: :attr:`mode` and :attr:`demoted` say so.
        """
        self._not_released()
        session, what = self._client._session, _shown(self._name)
        op = session.submit_convert(self._seq, mode, flags, timeout, value, what)
        try:
            granted, token, read, valid, self._demoted = session.wait(self._seq, op, timeout, what)
        except MxlockError:
            self._refused(flags)
            raise
        except BaseException:
            session.cancel(self._seq)
            self._refused(flags)
            raise
        self._mode, self._token = Mode(granted), token
        if read is not None:
            self._value, self._value_valid = read, valid

    def _refused(self, flags: Flags) -> None:
        """A conversion was not granted: what is left of the mode?"""
        mode = self._client._session.mode(self._seq)
        if Flags.CONVDEADLK in flags and mode is not None:
            self._demoted = mode != self._mode
            self._mode = Mode(mode)

    def release(self, value: Optional[bytes] = None, *, invalidate: bool = False) -> None:
        """Releases the lock and waits for the answer. From PW or EX, ``value`` is the new value block, or
        ``invalidate`` says that the old one can no longer be trusted.

        Raises :class:`LeaseLost` or :class:`LockLost` when the lock was lost before: what was done under it may not have
        been protected. The lock is given up in any case.
        """
        self._not_released()
        session, what = self._client._session, _shown(self._name)
        if value is not None and not 1 <= len(value) <= 64:
            raise _errors.UsageError(f"a value block of {len(value)} bytes cannot be written: give 1 to 64 bytes")
        self._released = True
        try:
            op = session.submit_unlock(self._seq, value, invalidate, what)
            session.wait(self._seq, op, 0.0, what)
        except LockLost:
            session.abandon(self._seq)
            raise

    def _not_released(self) -> None:
        if self._released:
            raise _errors.UsageError(f"the lock on '{_shown(self._name)}' was released before")

    def _error(self, kind: str, reason: str) -> MxlockError:
        error: type[MxlockError] = getattr(_errors, kind)
        return error(f"the lock on '{_shown(self._name)}' is lost: {reason}")


def _bytes(name: Name) -> bytes:
    return name if isinstance(name, bytes) else name.encode(sys.getfilesystemencoding(), "surrogateescape")


def _shown(name: Name) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
