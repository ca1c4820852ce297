"""Tests of the fork server, whose children are like the caller's own, but smaller."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest

from linux.netns import NetNS
from runtime.daemon.client import DaemonClient
from runtime.engine import Engine
from runtime.errors import CommandNotFoundError
from runtime.init import fork_server
from runtime.init.fork_server import ForkServer
from runtime.store import Store
from tests.runtime.conftest import FOR_EVER


@pytest.fixture
def server(host: NetNS) -> Iterator[ForkServer]:
    """Begin a fork server in the host netns."""
    with closing(ForkServer.begin()) as made:
        yield made


@pytest.fixture
def served(root: Path, server: ForkServer) -> Iterator[Engine]:
    """Make an engine that starts its containers by the fork server."""
    made = Engine(root, spawn=server.spawn)
    yield made
    made.teardown()


def test_container_started_by_the_fork_server_runs(served: Engine) -> None:
    """A container started by the fork server runs, logs and reports its exit code."""
    made = served.run("base", ["sh", "-c", "echo hello; exit 3"], network="none")
    assert served.wait(made.id) == 3
    assert [entry.data for entry in served.logs(made.id)] == [b"hello\n"]


def test_running_command_has_no_descriptor_of_the_start(served: Engine) -> None:
    """A start returns while the command runs, because the exec closes the status pipe."""
    made = served.run("base", FOR_EVER, network="none")
    below = Path(f"/proc/{made.state.pid}/task/{made.state.pid}/children").read_text().split()
    assert sorted(os.listdir(f"/proc/{below[0]}/fd")) == ["0", "1", "2"]


def test_start_error_is_raised_in_the_fork_servers_caller(served: Engine) -> None:
    """An error in a container's first process is raised in the fork server's caller."""
    with pytest.raises(CommandNotFoundError):
        served.run("base", ["/nosuch"], network="none")


def test_interpreter_of_pid_1_is_on_a_read_only_mount(served: Engine) -> None:
    """The owner of the interpreter's file cannot change its mode through pid 1's `exe`."""
    made = served.run("base", FOR_EVER, network="none")
    opened = os.open(f"/proc/{made.state.pid}/exe", os.O_RDONLY)
    try:
        assert os.fstatvfs(opened).f_flag & os.ST_RDONLY
        with pytest.raises(OSError, match="Read-only file system"):
            os.fchmod(opened, os.fstat(opened).st_mode)
    finally:
        os.close(opened)


def test_daemon_started_by_the_fork_server_resolves_names(served: Engine) -> None:
    """Containers started by the fork server resolve each other's names."""
    served.network_create("lan")
    served.run("base", FOR_EVER, name="web", network="lan")
    asks = served.run("base", ["nslookup", "web"], network="lan")
    assert served.wait(asks.id) == 0


def test_daemon_runs_when_its_start_returns(root: Path, server: ForkServer) -> None:
    """The caller waits until the daemon runs, also if the fork server starts it."""
    store = Store(str(root))
    store.prepare()
    os.kill(server.process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(DaemonClient(store, server.spawn).revive)
        try:
            assert wait([begun], timeout=0.2).not_done
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        begun.result(timeout=10)


def test_caller_forks_when_the_fork_server_has_ended(root: Path, host: NetNS) -> None:
    """After the fork server was killed, containers still start: the caller forks itself."""
    with closing(ForkServer.begin()) as server:
        engine = Engine(root, spawn=server.spawn)
        server.process.kill()
        server.process.wait()
        try:
            assert engine.run("base", FOR_EVER, network="none").running
        finally:
            engine.teardown()


def test_caller_forks_when_the_request_is_too_large(served: Engine) -> None:
    """A container starts with an environment too large for a message to the fork server."""
    size = fork_server.LARGEST_REQUEST // 16
    env = {f"LARGE_{number}": "x" * size for number in range(16)}
    made = served.run("base", ["sh", "-c", "test ${#LARGE_7} = $0", str(size)], env=env)
    assert served.wait(made.id) == 0


def test_fork_server_ends_with_its_caller(host: NetNS) -> None:
    """The fork server exits once no process has the other end of its channel."""
    server = ForkServer.begin()
    server.channel.close()
    try:
        assert server.process.wait(timeout=10) == 0
    finally:
        server.close()
