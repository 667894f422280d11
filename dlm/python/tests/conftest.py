"""Real daemons on a lockstate in a temporary directory. No root is needed: the file is this machine's alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import mxlock
import pytest

PATIENCE = 20.0
"""No test waits longer for anything, in seconds."""

Timing = dict[str, int]

QUICK: Timing = {"renew": 300, "lease": 1_200, "grace": 400, "dead": 2_200}
"""As short as a busy machine allows."""
STEADY: Timing = {"renew": 800, "lease": 3_200, "grace": 1_200, "dead": 6_000}
"""Long enough to restart a daemon within its lease."""


def program(name: str) -> str:
    """A program of mxlock: in ``$MXLOCK_BIN_DIR``, else in the path."""
    directory = os.environ.get("MXLOCK_BIN_DIR")
    found = str(Path(directory) / name) if directory else shutil.which(name)
    if not found or not os.access(found, os.X_OK):
        pytest.exit(f"{name} is missing: build it and set MXLOCK_BIN_DIR", 1)
    return found


def until(what: str, look: Callable[[], bool]) -> None:
    """Waits until ``look`` is true."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)


class Daemon:
    """One ``mxlockd``."""

    def __init__(self, directory: Path, lockstate: Path, node: int) -> None:
        self.directory = directory / f"node{node}"
        self.directory.mkdir()
        self.lockstate = lockstate
        self.number = node
        self.process: Optional[subprocess.Popen[bytes]] = None

    @property
    def socket(self) -> Path:
        return self.directory / "sock"

    def start(self) -> None:
        words = [program("mxlockd"), "--lockstate", str(self.lockstate), "--node", str(self.number)]
        words += ["--listen", "127.0.0.1:0", "--advertise", "127.0.0.1", "--socket", str(self.socket)]
        words += ["--state-dir", str(self.directory / "state")]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(self.directory), "XDG_RUNTIME_DIR": str(self.directory)}
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    def ready(self) -> None:
        until("the socket is there", self.socket.exists)
        self.ask("wait-ready", "-w", str(PATIENCE))

    def ask(self, *arguments: str) -> str:
        """Runs ``mxlock``."""
        words = [program("mxlock"), "--socket", str(self.socket), *arguments]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self.process = None

    def client(self) -> mxlock.Client:
        return mxlock.connect(socket=self.socket)

    def waiters(self, name: str) -> int:
        """How many requests wait for ``name``."""
        return self.ask("locks", name).count(" waiting ")


class Cluster:
    """Two daemons on one lockstate."""

    def __init__(self, timing: Timing) -> None:
        # Not in /tmp, which may be a tmpfs that has no direct I/O.
        self.directory = Path(tempfile.mkdtemp(prefix="mxlock-python-", dir="/var/tmp"))
        lockstate = self.directory / "lockstate"
        words = [program("mxlockd"), "format", str(lockstate), "--slots", "4096"]
        for name, value in timing.items():
            words += [f"--{name}-ms", str(value)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        self.nodes = [Daemon(self.directory, lockstate, node) for node in (0, 1)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
            node.ready()

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop()
        shutil.rmtree(self.directory)


def running(timing: Timing) -> Iterator[Cluster]:
    cluster = Cluster(timing)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        for node in cluster.nodes:
            print(f"---- the log of node {node.number}", (node.directory / "log").read_text()[-4_000:])
        raise
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster that all tests use which do not kill daemons."""
    yield from running(STEADY)


@pytest.fixture
def quick_cluster() -> Iterator[Cluster]:
    """A cluster for a test that kills a daemon."""
    yield from running(QUICK)


@pytest.fixture
def steady_cluster() -> Iterator[Cluster]:
    """A cluster for a test that restarts a daemon."""
    yield from running(STEADY)


@pytest.fixture
def one(cluster: Cluster) -> Iterator[mxlock.Client]:
    """A client on node 0."""
    with cluster.nodes[0].client() as client:
        yield client


@pytest.fixture
def two(cluster: Cluster) -> Iterator[mxlock.Client]:
    """A client on node 1."""
    with cluster.nodes[1].client() as client:
        yield client
