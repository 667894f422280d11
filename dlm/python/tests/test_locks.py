"""What locks do, between two nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import mxlock
import pytest
from conftest import PATIENCE, Cluster, until
from mxlock import Flags, Mode, _mxlock


def test_an_exclusive_lock_excludes(one: mxlock.Client, two: mxlock.Client) -> None:
    """I1, I2: one holder; tokens grow."""
    with one.lock("exclusive", timeout=5) as lock:
        assert lock.valid() and lock.mode is Mode.EX and lock.lost is None
        lock.check()
        with pytest.raises(mxlock.LockConflict, match="'exclusive': it is held in a conflicting mode"):
            two.lock("exclusive", timeout=0)
        assert two.try_lock("exclusive", mode=Mode.PR) is None
        with pytest.raises(TimeoutError) as timed_out:
            two.lock("exclusive", timeout=0.2)
        assert isinstance(timed_out.value, mxlock.LockTimeout)
        first = lock.token
        assert "EX" in repr(lock) and str(first) in repr(lock)
    assert not lock.valid()
    with two.lock("exclusive", timeout=5) as lock:
        assert lock.token > first


def test_shared_locks_share(one: mxlock.Client, two: mxlock.Client) -> None:
    with one.lock("shared", mode=Mode.PR), two.lock("shared", mode=Mode.PR, timeout=5):
        assert one.try_lock("shared") is None


def test_names(one: mxlock.Client, two: mxlock.Client) -> None:
    """Bytes and text are the same name; another namespace is another lock."""
    with one.lock("näme"), one.lock(b"a\xff", namespace="python"):
        assert two.try_lock("näme".encode()) is None
        assert two.try_lock(b"a\xff", namespace=b"python") is None
        other = two.try_lock(b"a\xff")
        assert other is not None
        other.release()
    for wrong in ("", "x" * 136, "nul\0byte"):
        with pytest.raises(mxlock.UsageError):
            one.lock(wrong)


def test_a_conversion_that_gives_up_its_mode(one: mxlock.Client, two: mxlock.Client) -> None:
    """CONVDEADLK: of two that wait for each other, one is demoted and hears of it, granted or not."""
    keeper = one.lock("deadlock", mode=Mode.CR, transaction=7)
    first, second = one.lock("deadlock", mode=Mode.PR), two.lock("deadlock", mode=Mode.PR, timeout=5)
    converting = threading.Thread(target=lambda: first.convert(Mode.EX, timeout=30))
    converting.start()
    until("a notice", lambda: any(isinstance(event, mxlock.Blocking) for event in two.poll_events(0.1)))
    with pytest.raises(mxlock.LockTimeout):
        second.convert(Mode.EX, timeout=0.3, flags=Flags.CONVDEADLK)
    assert (second.mode, second.demoted) == (Mode.NL, True)
    keeper.release()
    converting.join()
    assert first.mode is Mode.EX and not first.demoted
    first.release()
    second.convert(Mode.EX, timeout=5, flags=Flags.CONVDEADLK)
    assert (second.mode, second.demoted) == (Mode.EX, False)
    second.release()


def test_conversions_and_values(one: mxlock.Client, two: mxlock.Client) -> None:
    """I9: what was written under PW or EX is what is read, or it says that it is not valid."""
    reader = two.lock("value", mode=Mode.NL)
    with one.lock("value") as writer:
        writer.convert(Mode.PR, value=b"first")
        assert writer.mode is Mode.PR
        reader.convert(Mode.PR, timeout=5)
        assert (reader.value, reader.value_valid) == (b"first", True)
        with pytest.raises(mxlock.LockConflict):
            writer.convert(Mode.EX, timeout=0)
        assert writer.mode is Mode.PR and writer.valid()
        reader.convert(Mode.NL)
        writer.convert(Mode.EX, timeout=5)
        writer.release(b"second")
    reader.convert(Mode.CR)
    assert reader.value == b"second"
    with one.lock("value", mode=Mode.PW) as writer:
        writer.release(invalidate=True)
    reader.convert(Mode.NL)
    reader.convert(Mode.PR)
    assert not reader.value_valid
    reader.release()
    for wrong in (b"", b"x" * 65):
        with one.lock("value") as lock, pytest.raises(mxlock.UsageError, match="1 to 64 bytes"):
            lock.release(wrong)


def test_ranges(one: mxlock.Client, two: mxlock.Client) -> None:
    with one.lock("range", range=(0, 99)):
        with two.lock("range", range=(100, None), timeout=5):
            assert one.try_lock("range") is None
        with pytest.raises(mxlock.LockConflict):
            two.lock("range", range=(99, 99), timeout=0)
    with pytest.raises(mxlock.UsageError, match="ends before it starts"):
        one.lock("range", range=(2, 1))


def test_a_deadlock_is_found(cluster: Cluster, one: mxlock.Client, two: mxlock.Client) -> None:
    """Over two nodes; the youngest request is refused, the other one goes on."""
    done = threading.Event()

    def first() -> None:
        with one.lock("left"):
            with one.lock("right", timeout=PATIENCE):
                done.set()

    right = two.lock("right")
    thread = threading.Thread(target=first)
    thread.start()
    until("the thread waits", lambda: cluster.nodes[0].waiters("right") == 1)
    with pytest.raises(mxlock.Deadlock):
        two.lock("left")
    right.release()
    assert done.wait(PATIENCE)
    thread.join()


def test_the_owner_is_the_thread(cluster: Cluster, one: mxlock.Client) -> None:
    """A thread that waits for itself waits for ever; one that waits for another thread of the client does not."""
    granted = threading.Event()

    def wait() -> None:
        with one.lock("owner", timeout=PATIENCE):
            granted.set()

    with one.lock("owner"):
        with pytest.raises(mxlock.Deadlock):
            one.lock("owner")
        thread = threading.Thread(target=wait)
        thread.start()
        until("the thread waits", lambda: cluster.nodes[0].waiters("owner") == 1)
    assert granted.wait(PATIENCE)
    thread.join()


def test_transactions_are_owners(one: mxlock.Client, two: mxlock.Client) -> None:
    """The same transaction on two clients: who waits for what it holds itself."""
    with one.lock("transaction", transaction=77), pytest.raises(mxlock.Deadlock):
        two.lock("transaction", transaction=77)


def test_pending_requests(one: mxlock.Client, two: mxlock.Client) -> None:
    lock = one.lock("pending")
    waiting = two.submit("pending")
    assert not waiting.done()
    lock.release()
    until("the request is granted", waiting.done)
    assert waiting.wait() is waiting.wait()
    cancelled = one.submit("pending")
    cancelled.cancel()
    waiting.wait().release()
    with one.lock("pending", timeout=5):
        pass


def test_alternative_modes(one: mxlock.Client, two: mxlock.Client) -> None:
    with one.lock("flags", mode=Mode.PR), two.lock("flags", flags=Flags.ALTPR | Flags.NOQUEUE) as lock:
        assert lock.mode is Mode.PR


def test_an_orphan_is_adopted(cluster: Cluster, one: mxlock.Client) -> None:
    """A lock that outlives its process."""
    script = "import mxlock, os; c = mxlock.connect(); print(c.lock('orphan', orphan=60).token, flush=True); os._exit(0)"
    environment = {**os.environ, "MXLOCK_SOCKET": str(cluster.nodes[0].socket)}
    words = [sys.executable, "-c", script]
    token = int(subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert one.try_lock("orphan") is None
    deadline = time.monotonic() + 10
    while True:
        try:
            lock = one.adopt("orphan")
            break
        except mxlock.NotFound:
            # The daemon has not seen the end of the process yet.
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert lock.token >= token and lock.valid()
    lock.release()
    with pytest.raises(mxlock.NotFound):
        one.adopt("orphan")


def test_wrong_use(one: mxlock.Client, tmp_path: Path) -> None:
    with pytest.raises(mxlock.Unavailable, match="is mxlockd running"):
        mxlock.connect(socket=tmp_path / "sock")
    with pytest.raises(mxlock.UsageError, match="is no time"):
        one.lock("x", timeout=-1)
    lock = one.lock("released")
    lock.release()
    for again in (lock.release, lock.check, lambda: lock.convert(Mode.PR)):
        with pytest.raises(mxlock.UsageError, match="was released before"):
            again()


def test_a_closed_client(cluster: Cluster, two: mxlock.Client) -> None:
    """Its locks are released, its waits end, and it says what is wrong."""
    client = cluster.nodes[0].client()
    lock = client.lock("closed")
    assert client.node == 0 and client.connected and client.lease_valid
    blocked = two.lock("other")
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            client.lock("other")
        except mxlock.MxlockError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until("the thread waits", lambda: cluster.nodes[0].waiters("other") == 1)
    assert client.close()
    thread.join(10)
    assert isinstance(failures[0], mxlock.UsageError) and "closed" in str(failures[0])
    assert not lock.valid() and client.close() and client.poll_events() == []
    with pytest.raises(mxlock.UsageError, match="closed"):
        client.lock("again")
    two.lock("closed", timeout=5).release()
    blocked.release()


def test_flags_are_those_of_the_client() -> None:
    assert {flag.name: flag.value for flag in Flags if flag} == dict(_mxlock.FLAGS)


def test_all_errors_have_one_base() -> None:
    names = ["LockConflict", "LockTimeout", "LockLost", "LeaseLost", "Deadlock", "StorageError", "Cancelled"]
    names += ["NotFound", "PermissionDenied", "Unavailable", "UsageError"]
    assert all(issubclass(getattr(mxlock, name), mxlock.MxlockError) for name in names)
    assert issubclass(mxlock.LeaseLost, mxlock.LockLost) and issubclass(mxlock.LockTimeout, mxlock.LockConflict)
