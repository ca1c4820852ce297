"""Tests of a host's namespaces and files, and of function calls into the host."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from harness.testbench.concurrent import at_once
from harness.world.host import HOSTNAME, HostMachine
from linux import rtnetlink
from linux.netlink import Netlink, NetlinkError
from tests.world.hosts import KINDS, RESOLVER, WITHIN, look, started

# --- namespaces and files --------------------------------------------------------


def test_host_has_its_own_namespaces_and_processes(host: HostMachine) -> None:
    """A host has its own namespace of each kind.

    The host's init is pid 1 and its server is pid 2.
    """
    seen = host.call(look)
    assert (seen["pid"], seen["parent"], seen["processes"]) == (2, 1, [1, 2])
    assert (seen["hostname"], seen["cwd"]) == (HOSTNAME, "/")
    for kind in KINDS:
        inside, ours = host.namespace(kind)[1], os.stat(f"/proc/self/ns/{kind}").st_ino
        assert seen["namespaces"][kind] == inside != ours  # type: ignore[index] # a dict of them
    assert host.netns.id == host.namespace("net")
    assert os.getsid(host.pid) == host.pid != os.getsid(0), "Ctrl-C would reach it"


def test_process_that_enters_the_host_is_in_its_cgroup(host: HostMachine) -> None:
    """A process that enters the host is in the host's cgroup.

    Some runtimes create their cgroups below the cgroup of their caller.
    """
    assert at_once(host, [_cgroup]) == [host.call(_cgroup)]


def _cgroup() -> str:
    with open("/proc/self/cgroup", encoding="ascii") as file:
        return file.read()


def test_host_inherits_no_file_descriptor(host: HostMachine, tmp_path: Path) -> None:
    """The host's processes inherit no descriptor of the process that started the host."""
    with (tmp_path / "ours").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        other = started()
        try:
            held = {number: where.partition(":")[0] for number, where in _open(other).items()}
        finally:
            other.stop()
    assert held == {"0": "/dev/null", "1": "/run/netmodes/host.log", "2": "/run/netmodes/host.log"}


def _open(host: HostMachine) -> dict[str, str]:
    seen = host.call(look)["open"]
    assert isinstance(seen, dict)
    return seen


def test_host_has_resolv_conf_and_hosts_of_the_world(host: HostMachine) -> None:
    """The host has the resolv.conf and hosts file of the world.

    All other files in /etc are those of the machine.
    """
    said = host.run(["cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]).stdout
    assert (
        said == f"nameserver {RESOLVER}\n127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}\n{HOSTNAME}\n"
    )
    assert host.run(["cat", "/etc/passwd"]).stdout == Path("/etc/passwd").read_text()


def test_changes_in_etc_stay_inside_the_host() -> None:
    """A changed file in the host's /etc is changed neither on the machine nor in another host."""
    before = _of_etc()
    one, other = started(), started()
    try:
        script = "echo nameserver 127.0.0.1 > /etc/resolv.conf; rm /etc/passwd; mkdir /etc/new"
        assert one.run(["sh", "-c", script]).returncode == 0
        assert one.run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 127.0.0.1\n"
        assert one.run(["ls", "/etc/new"]).returncode == 0
        assert other.run(["cat", "/etc/resolv.conf"]).stdout == f"nameserver {RESOLVER}\n"
        assert other.run(["ls", "/etc/new"]).returncode != 0
    finally:
        one.stop()
        other.stop()
    assert _of_etc() == before


def _of_etc() -> dict[str, tuple[int, int] | None]:
    """Return inode and change time of the machine's files that the test changes in a host."""
    found: dict[str, tuple[int, int] | None] = dict.fromkeys(("new", "passwd", "resolv.conf"))
    for name in found:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(f"/etc/{name}")
            found[name] = status.st_ino, status.st_mtime_ns
    return found


# --- call ---------------------------------------------------------------------------


def _add(one: int, *, other: int) -> int:
    return one + other


def test_host_call_returns_the_result(host: HostMachine) -> None:
    """A function call in the host accepts positional and keyword arguments.

    The call can return large results.
    """
    assert host.call(_add, 1, other=2) == 3
    assert host.call(bytes, 3_000_000) == bytes(3_000_000)


class Picky(Exception):
    """An exception that cannot be created again from its `args`."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def _raise(what: str) -> NoReturn:
    match what:
        case "value":
            raise ValueError("of mine")
        case "netlink":
            raise NetlinkError(errno.ENODEV, "remove link x", "not mine")
        case "picky":
            raise Picky("this", "that")
        case _:
            sys.exit(7)


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("value", ValueError, "of mine"),
        ("netlink", NetlinkError, "[Errno 19] remove link x: No such device (not mine)"),
        ("picky", RuntimeError, "Picky: this and that"),
        ("exit", RuntimeError, "SystemExit: 7"),
    ],
)  # fmt: skip
def test_host_call_raises_remote_exception_with_traceback(
    host: HostMachine, what: str, kind: type[Exception], said: str
) -> None:
    """An exception in the host is raised in the caller.

    The exception has the host's traceback as a note.
    """
    with pytest.raises(kind) as caught:
        host.call(_raise, what)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(said)
    (note,) = caught.value.__notes__
    assert note.startswith("raised inside the host:\nTraceback")
    assert "in _raise" in note
    assert host.call(_add, 1, other=1) == 2


def _socket() -> socket.socket:
    return socket.socket()


def _add_later() -> int:
    return 0


def test_host_call_survives_unpicklable_values(host: HostMachine) -> None:
    """A result, argument or function that cannot be pickled raises an error.

    The host still serves the next call.
    """
    with pytest.raises(TypeError, match="cannot pickle"):
        host.call(_socket)
    with pytest.raises(TypeError, match="cannot pickle"):
        host.call(print, threading.Lock())
    with pytest.raises(AttributeError, match="local object"):
        host.call(lambda: 1)
    assert host.call(_add, 1, other=1) == 2


def test_host_call_of_unknown_function_is_an_error(
    doomed: HostMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of an unknown function raises, and the host still serves the next call."""
    doomed.call(_add, 1, other=1)  # from here on the module is loaded there as it is now
    monkeypatch.setattr(sys.modules[__name__], "_made_later", _add_later, raising=False)
    monkeypatch.setattr(_add_later, "__qualname__", "_made_later")
    with pytest.raises(AttributeError, match="_made_later"):
        doomed.call(_add_later)
    assert doomed.call(_add, 1, other=1) == 2


class Interrupted(BaseException):
    """Exception such as that of a test time limit, which may be raised at any point."""


def _wait_for_word(port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"waiting", ("127.0.0.1", port))
        sock.settimeout(WITHIN)
        sock.recv(10)
    return "late"


def test_interrupted_host_call_does_not_affect_the_next_call(doomed: HostMachine) -> None:
    """After an interrupted function call, the next call gets its own result."""
    with Netlink(doomed.netns) as netlink:
        netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)])

    def interrupt(*_: object) -> None:
        raise Interrupted

    def interrupt_call() -> None:
        """Interrupt the caller while its function runs in the host, then let the function end."""
        _, inside = listener.recvfrom(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert interrupted.wait(WITHIN)
        listener.sendto(b"go", inside)

    interrupted = threading.Event()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with doomed.netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.settimeout(WITHIN)
            thread = threading.Thread(target=interrupt_call)
            thread.start()
            with pytest.raises(Interrupted):
                doomed.call(_wait_for_word, listener.getsockname()[1])
            interrupted.set()
            assert doomed.call(_add, 1, other=1) == 2
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
