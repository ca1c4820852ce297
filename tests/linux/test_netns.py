"""Tests of handles for network namespaces, and of sysctls in another namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

_SIOCGSKNS = 0x894C
WITHIN = 10.0
"""Time limit in seconds for the kernel to remove an unused namespace, on the slowest machine."""


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """Start a second thread; all calls in a test run in this thread."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(current_netns).result(
            WITHIN
        )  # the thread starts in the first caller's netns
        yield executor


def current_netns() -> NetNS:
    """Return the network namespace of the calling thread."""
    with NetNS.own() as own:
        return own


def netns_of_socket(opened: socket.socket) -> NetNS:
    """Return the network namespace of a socket, as SIOCGSKNS reports it (socket(7))."""
    with NetNS(fcntl.ioctl(opened, _SIOCGSKNS)) as found:
        return found


def test_new_namespace_has_only_lo_and_caller_stays() -> None:
    """A new namespace has only `lo`, which is down.

    The calling thread stays in its own namespace.
    """
    before = current_netns()
    with NetNS.new() as made, Netlink(made) as netlink:
        assert made != before == current_netns()
        (lo,) = rtnetlink_dump.links(netlink)
        assert (lo.name, lo.up) == ("lo", False)


def test_handles_on_one_namespace_are_equal(space: NetNS) -> None:
    """Two handles for one namespace are equal.

    A handle equals no other object.
    """
    with NetNS(os.dup(space.fd)) as again, NetNS.new() as other:
        assert (again, hash(again)) == (space, hash(space))
        assert other != space
        assert len({space, again, other}) == 2
        assert space != space.id
        assert repr(space) == f"<NetNS net:[{space.id[1]}]>"


def test_at_opens_the_namespace_of_a_path(space: NetNS) -> None:
    """`at` opens the namespace of a path such as `/proc/PID/ns/net`."""
    with space.entered(), NetNS.at(f"/proc/{os.getpid()}/task/{_tid()}/ns/net") as found:
        assert found == space
    with pytest.raises(FileNotFoundError, match="/proc/self/ns/nowhere"):
        NetNS.at("/proc/self/ns/nowhere")


def _tid() -> int:
    return int(os.readlink("/proc/thread-self").rpartition("/")[2])


def test_entered_moves_the_caller_into_the_namespace_and_back(space: NetNS) -> None:
    """`entered` moves the calling thread into the namespace and back, even if nested.

    An exception in the body is raised.
    """
    before = current_netns()
    with NetNS.new() as inner, space.entered():
        assert current_netns() == space
        with inner.entered():
            assert current_netns() == inner
        assert current_netns() == space
        with NetNS.new() as made:
            assert made != current_netns() == space
    assert current_netns() == before
    with pytest.raises(ZeroDivisionError), space.entered():
        raise ZeroDivisionError
    assert current_netns() == before


def test_handle_on_another_file_cannot_be_entered() -> None:
    """Entering the handle of a file that is no network namespace raises an error.

    The calling thread stays in its namespace.
    """
    before = current_netns()
    for path in ("/proc/self/ns/uts", "/dev/null"):
        with NetNS.at(path) as wrong:
            with pytest.raises(OSError, match=rf"setns\({wrong.fd}, 0x40000000\): Invalid"):
                wrong.entered().__enter__()
            with pytest.raises(OSError, match="setns"):
                wrong.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert current_netns() == before


def test_entered_moves_only_the_calling_thread(space: NetNS, thread: ThreadPoolExecutor) -> None:
    """`entered` moves only the calling thread, so two threads can be in two namespaces."""
    before = current_netns()
    with space.entered():
        assert thread.submit(current_netns).result(WITHIN) == before
    with NetNS.new() as other:
        body = other.entered()
        thread.submit(body.__enter__).result(WITHIN)
        with space.entered():
            assert (current_netns(), thread.submit(current_netns).result(WITHIN)) == (space, other)
        left: Future[bool | None] = thread.submit(body.__exit__, None, None, None)
        left.result(WITHIN)
    assert current_netns() == thread.submit(current_netns).result(WITHIN) == before


def test_opened_socket_stays_in_its_first_namespace(space: NetNS) -> None:
    """A socket stays in the namespace where it was opened.

    It can be used from any other namespace.
    """
    stream = (socket.AF_INET, socket.SOCK_STREAM)
    with space.socket(*stream) as listener, space.socket(*stream) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert (
                netns_of_socket(listener)
                == netns_of_socket(accepted)
                == netns_of_socket(client)
                == space
                != current_netns()
            )


def test_closing_a_netns_again_does_nothing() -> None:
    """Closing a handle again does nothing, because its number may be another file's by then."""
    handle = NetNS.new()
    number = handle.fd
    handle.close()
    with open("/dev/null", "rb") as other:
        os.dup2(other.fileno(), number)
        handle.close()
        os.close(number)


def test_handles_and_sockets_are_close_on_exec(space: NetNS) -> None:
    """A program that is started inherits no descriptor of a namespace or of its sockets."""
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened, Netlink(space) as netlink:
        held = (space.fd, opened.fileno(), netlink._socket.fileno())
        look = "import os, sys; print([n for n in sys.argv[1:] if os.path.exists(f'/dev/fd/{n}')])"
        done = subprocess.run(
            [sys.executable, "-S", "-c", look, *map(str, held)],
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "[]\n"


FORWARD = "net.ipv4.ip_forward"


def test_sysctl_belongs_to_its_namespace(space: NetNS) -> None:
    """A sysctl that is set in one namespace is not changed in another one."""
    with NetNS.new() as other, NetNS.own() as own:
        before = netns.read_sysctls(own, [FORWARD])
        netns.write_sysctls(space, {FORWARD: 1, "net.ipv4.ip_default_ttl": "77"})
        netns.write_sysctls(other, {FORWARD: 0})
        assert netns.read_sysctls(space, [FORWARD, "net.ipv4.ip_default_ttl"]) == {
            FORWARD: "1",
            "net.ipv4.ip_default_ttl": "77",
        }
        assert netns.read_sysctls(other, [FORWARD]) == {FORWARD: "0"}
        assert netns.read_sysctls(own, [FORWARD]) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.ipv4.ip_local_port_range", "2000 3000"),
        ("net.ipv6.icmp.ratemask", ""),
        ("net.ipv4.conf.br0/7.forwarding", "1"),
    ],
)
def test_sysctl_reads_as_written(space: NetNS, key: str, value: str) -> None:
    """A sysctl is read as it was written.

    White space is folded, and an empty text clears a bit mask. A slash stands for a dot within a
    name (sysctl.d(5)).
    """
    with Netlink(space) as netlink:
        netlink.send([rtnetlink.add_bridge("br0.7")])
    assert netns.read_sysctls(space, [key]) != {key: value}
    netns.write_sysctls(space, {key: value})
    assert netns.read_sysctls(space, [key]) == {key: value}


def test_refused_sysctl_is_named(space: NetNS) -> None:
    """If a sysctl is unknown, or the kernel refuses the value, the error names the sysctl."""
    with pytest.raises(FileNotFoundError, match=r"net/ipv4/nothing"):
        netns.read_sysctls(space, [FORWARD, "net.ipv4.nothing"])
    with pytest.raises(FileNotFoundError, match=r"net\.ipv4\.nothing = 1: No such file"):
        netns.write_sysctls(space, {"net.ipv4.nothing": 1})
    with pytest.raises(OSError, match=r"net\.ipv4\.ip_default_ttl = 0: Invalid argument"):
        netns.write_sysctls(space, {FORWARD: 1, "net.ipv4.ip_default_ttl": 0})
    assert netns.read_sysctls(space, [FORWARD]) == {FORWARD: "1"}
