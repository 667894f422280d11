"""Waiting: signals, threads, events, forks."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from types import FrameType
from typing import Optional

import mxlock
import pytest
from conftest import PATIENCE, Cluster, until
from mxlock import Mode


def test_a_keyboard_interrupt_ends_a_wait(cluster: Cluster, one: mxlock.Client, two: mxlock.Client) -> None:
    """And the request is withdrawn."""
    with one.lock("interrupted"):
        until("nobody waits", lambda: cluster.nodes[0].waiters("interrupted") == 0)
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            two.lock("interrupted")
        assert time.monotonic() - started < 5
        timer.join()
        until("nobody waits", lambda: cluster.nodes[0].waiters("interrupted") == 0)
    two.lock("interrupted", timeout=5).release()


def test_an_interrupted_conversion_keeps_the_lock(one: mxlock.Client, two: mxlock.Client) -> None:
    class Alarm(Exception):
        pass

    def ring(number: int, frame: Optional[FrameType]) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with one.lock("alarm", mode=Mode.PR), two.lock("alarm", mode=Mode.PR) as lock:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Alarm):
                lock.convert(Mode.EX)
            assert lock.valid() and lock.mode is Mode.PR
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_wait_leaves_the_interpreter_to_others(one: mxlock.Client, two: mxlock.Client) -> None:
    """Other threads run while one waits, also with the same client."""
    lock = one.lock("gil")
    granted = threading.Event()

    def wait() -> None:
        with two.lock("gil", timeout=PATIENCE):
            granted.set()

    thread = threading.Thread(target=wait)
    thread.start()
    steps = 0
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        steps += 1
        with two.lock(f"gil-{steps}", timeout=5):
            pass
    assert steps > 3 and not granted.is_set()
    lock.release()
    assert granted.wait(PATIENCE)
    thread.join()


def test_threads_count_under_a_lock(one: mxlock.Client, two: mxlock.Client) -> None:
    """I1: no increment is lost between threads of two clients."""
    counter = [0]

    def count(client: mxlock.Client) -> None:
        for _ in range(20):
            with client.lock("counter", timeout=PATIENCE) as lock:
                value = counter[0]
                time.sleep(0)
                lock.check()
                counter[0] = value + 1

    threads = [threading.Thread(target=count, args=(client,)) for client in (one, one, two, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter == [80]


def test_a_blocking_notice_is_an_event(one: mxlock.Client, two: mxlock.Client) -> None:
    with one.lock("notice") as lock:
        assert one.poll_events() == []
        assert select.select([one.fileno()], [], [], 0)[0] == []
        waiting = two.submit("notice", mode=Mode.PR)
        assert select.select([one.fileno()], [], [], PATIENCE)[0] == [one.fileno()]
        assert one.poll_events() == [mxlock.Blocking(lock, Mode.PR)]
        assert select.select([one.fileno()], [], [], 0)[0] == []
        lock.convert(Mode.PR)
        waiting.wait().release()
    started = time.monotonic()
    assert one.poll_events(0.1) == [] and time.monotonic() - started >= 0.1


def test_a_notice_that_comes_early_waits_for_its_lock(one: mxlock.Client, two: mxlock.Client) -> None:
    granted = one.submit("early")
    until("the request is granted", granted.done)
    waiting = two.submit("early")
    assert one.poll_events(0.2) == [], "nobody has the lock yet whom it could concern"
    lock = granted.wait()
    assert one.poll_events(PATIENCE) == [mxlock.Blocking(lock, Mode.EX)]
    lock.release()
    waiting.wait().release()


def test_a_forked_child_cannot_use_its_parents_client(one: mxlock.Client) -> None:
    """And its end, also an orderly one, leaves the parent's locks alone."""
    with one.lock("fork") as lock:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            said = "nothing"
            try:
                one.lock("child", timeout=0)
            except mxlock.UsageError as error:
                said = str(error)
            one.close()
            del one
            os.write(writer, said.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert "connect again after fork" in pipe.read()
        os.waitpid(child, 0)
        assert lock.valid()
    assert lock.lost is None
