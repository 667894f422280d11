"""Daemons that go away."""

from __future__ import annotations

import time

import mxlock
import pytest
from conftest import PATIENCE, Cluster, until


def test_a_restart_keeps_the_lock(steady_cluster: Cluster) -> None:
    """Section 5: sessions survive a restart of their daemon. The program does nothing for it."""
    node = steady_cluster.nodes[1]
    with node.client() as client, client.lock("kept") as lock:
        token = lock.token
        node.kill()
        assert lock.valid(), "until the lease's deadline"
        node.start()
        node.ready()
        # Far beyond the lease that it had from the first process.
        time.sleep(4)
        lock.check()
        assert lock.token == token
        kinds = [type(event) for event in client.poll_events()]
        assert mxlock.Disconnected in kinds and mxlock.Connected in kinds and mxlock.Lost not in kinds
        with steady_cluster.nodes[0].client() as other:
            assert other.try_lock("kept") is None


def test_a_lost_lease_is_told_in_every_way(quick_cluster: Cluster) -> None:
    """By the lock, as an event, by a wait, and at the end of the block; then another node has the lock."""
    node = quick_cluster.nodes[1]
    client = node.client()
    lock = client.lock("lost")
    with pytest.raises(mxlock.LeaseLost), lock:
        node.kill()
        with pytest.raises(mxlock.LeaseLost):
            client.lock("another", timeout=PATIENCE)
        until("the lock is lost", lambda: lock.lost is not None)
        assert not lock.valid()
        with pytest.raises(mxlock.LeaseLost, match="the lock on 'lost' is lost: the node's lease ended"):
            lock.check()
        with pytest.raises(mxlock.LeaseLost):
            lock.convert(mxlock.Mode.PR)
        events = client.poll_events(PATIENCE)
        assert any(isinstance(event, mxlock.Lost) and event.lock is lock for event in events)
        assert any(isinstance(event, mxlock.LeaseEnded) for event in events)
    with quick_cluster.nodes[0].client() as other, other.lock("lost", timeout=PATIENCE):
        pass
    client.close(0)


def test_an_exception_of_the_block_is_not_hidden(quick_cluster: Cluster) -> None:
    """By the loss that it may be the consequence of."""
    node = quick_cluster.nodes[1]
    client = node.client()
    lock = client.lock("hidden")
    with pytest.raises(ZeroDivisionError), lock:
        node.kill()
        until("the lock is lost", lambda: lock.lost is not None)
        raise ZeroDivisionError
    client.close(0)
