"""Tests of an agent's sockets, which behave like local ones.

In these tests the agent runs on the same machine.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from harness.probe import quiescence, remote, sockets
from harness.probe.remote import AgentClient, AgentLost, AgentNetNS, RemoteSocket
from harness.testbench.listener import Listener
from harness.testbench.netns_view import NetnsView, fixed
from harness.testbench.scene import LOOPBACKS
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

LOOPBACK = ("127.0.0.1", 0)
_IP_RECVTTL = 12


@pytest.fixture
def space() -> Iterator[NetNS]:
    """Create a netns whose `lo` is up."""
    with NetNS.new() as made:
        with Netlink(made) as netlink:
            netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)])
        yield made


@pytest.fixture
def process(tmp_path: Path, space: NetNS) -> Iterator[subprocess.Popen[bytes]]:
    """Start an agent in the netns, and return its process."""
    with (
        space.entered(),
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, *remote.COMMAND[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
        ) as running,
    ):
        yield running


@pytest.fixture
def agent(process: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[AgentClient]:
    """Return a client that is connected to the agent."""
    assert process.stdin is not None
    assert process.stdout is not None
    ends = os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno())
    process.stdin.close()
    made = AgentClient("box", *ends, log=tmp_path / "log")
    yield made
    made.close()


def opened(agent: AgentClient, kind: int) -> RemoteSocket:
    """Open an IPv4 socket through the agent."""
    return RemoteSocket(agent, socket.AF_INET, kind)


def local(space: NetNS) -> socket.socket:
    """Open an IPv4 UDP socket in the agent's netns, without the agent."""
    return space.socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_remote_stream_transfers_in_both_directions(agent: AgentClient, space: NetNS) -> None:
    """A remote stream socket transfers data in both directions.

    Blocking calls time out when the buffers are full or empty.
    """
    with (
        opened(agent, socket.SOCK_STREAM) as listener,
        space.socket(socket.AF_INET, socket.SOCK_STREAM) as call,
    ):
        listener.bind(LOOPBACK)
        listener.listen()
        call.connect(listener.getsockname())
        accepted, sender = listener.accept()
        with accepted:
            assert sender == call.getsockname()
            assert accepted.getpeername() == sender
            call.setblocking(False)
            call.send(bytes(1000))
            assert accepted.recv(4096) == bytes(1000)
            call.setblocking(True)
            call.settimeout(0.01)
            accepted.settimeout(0.05)
            with pytest.raises(TimeoutError):
                accepted.sendall(bytes(64 << 20))
            with pytest.raises(TimeoutError):
                accepted.recv(1)


def test_remote_datagram_has_sender_and_ancillary_data(agent: AgentClient, space: NetNS) -> None:
    """A datagram at a remote socket has its sender, and its TTL as ancillary data."""
    with opened(agent, socket.SOCK_DGRAM) as receiver, local(space) as call:
        receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        receiver.bind(LOOPBACK)
        call.connect(receiver.getsockname())
        call.send(b"hello")
        data, beside, _, sender = receiver.recvmsg(100, 512)
        assert (data, sender) == (b"hello", call.getsockname())
        assert [(level, kind) for level, kind, _ in beside] == [(socket.IPPROTO_IP, socket.IP_TTL)]
        receiver.sendto(b"well met", sender)
        assert call.recv(100) == b"well met"


def test_select_reports_a_readable_remote_socket(agent: AgentClient, space: NetNS) -> None:
    """`select` reports a remote socket as readable exactly while a datagram is unread."""
    with opened(agent, socket.SOCK_DGRAM) as receiver, local(space) as call:
        receiver.setblocking(False)
        receiver.bind(LOOPBACK)
        assert not select.select([receiver], [], [], 0)[0]
        for word in (b"one", b"two"):
            call.sendto(word, receiver.getsockname())
        assert select.select([receiver], [], [], 5)[0]
        assert receiver.recv(9) == b"one"
        assert select.select([receiver], [], [], 5)[0]
        assert receiver.recv(9) == b"two"
        assert not select.select([receiver], [], [], 0)[0]
        with pytest.raises(BlockingIOError):
            receiver.recv(9)
        call.sendto(b"three", receiver.getsockname())
        assert select.select([receiver], [], [], 5)[0]


def test_remote_socket_raises_errors_of_the_kernel(agent: AgentClient) -> None:
    """The class of a remote socket's exception depends on the errno."""
    with opened(agent, socket.SOCK_STREAM) as call:
        with pytest.raises(ConnectionRefusedError):
            call.connect(("127.0.0.1", 1))
        with pytest.raises(FileNotFoundError):
            agent.do(["load", "/no/such/file"])
    with pytest.raises(ValueError, match="dance"):
        agent.do(["dance"])


def test_closed_connection_ends_the_agent(
    agent: AgentClient, process: subprocess.Popen[bytes]
) -> None:
    """When its connection is closed, the agent ends without a signal."""
    agent.close()
    assert process.wait(5) == 0


def test_remote_socket_is_readable_after_sync(agent: AgentClient, space: NetNS) -> None:
    """After `sync`, a remote socket with a datagram is readable.

    The agent's notice of the datagram comes before its reply to `sync`.
    """
    with opened(agent, socket.SOCK_DGRAM) as receiver, local(space) as call:
        receiver.bind(LOOPBACK)
        readable = receiver.fileno()
        call.sendto(b"now", receiver.getsockname())
        agent.sync()
        assert select.select([readable], [], [], 0)[0]


def test_killed_agent_wakes_waiting_caller_with_an_error(
    agent: AgentClient, process: subprocess.Popen[bytes]
) -> None:
    """If the agent is killed, a caller that waits for a remote socket gets AgentLost.

    AgentLost is no OSError, because it is not an error of the network.
    """
    with opened(agent, socket.SOCK_DGRAM) as receiver:
        receiver.bind(LOOPBACK)
        readable = receiver.fileno()
        process.send_signal(signal.SIGKILL)
        assert select.select([readable], [], [], 5)[0]
        with pytest.raises(AgentLost, match="container box"):
            receiver.recv(1)
    assert not issubclass(AgentLost, OSError)


def test_netns_of_userspace_stack_cannot_be_entered(agent: AgentClient, space: NetNS) -> None:
    """The netns of a container with a user-space network stack cannot be entered.

    It has the identity of the host's netns. Its sockets are opened by the agent.
    """
    with AgentNetNS(os.dup(space.fd), agent, own_stack=True) as inside:
        assert inside == space
        with pytest.raises(remote.UserspaceStack, match="box"), inside.entered():
            pass
        with inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            assert isinstance(receiver, RemoteSocket)


def test_silent_connection_does_not_block_a_remote_listener(
    agent: AgentClient, space: NetNS
) -> None:
    """A remote listener accepts a connection that sends nothing, and still serves others."""
    inside = NetnsView("box", lambda: AgentNetNS(os.dup(space.fd), agent, own_stack=True))
    beside = fixed("beside", space)
    loopback = LOOPBACKS[4]
    with (
        Listener(inside, "tcp", port=31080) as receiver,
        space.socket(socket.AF_INET, socket.SOCK_STREAM) as stray,
        Listener(beside, "tcp") as other,
    ):
        stray.connect((str(loopback), receiver.port))
        calls = [(beside, loopback, port) for port in (receiver.port, other.port)]
        delivered = receiver.delivered(calls, agent.sync)
        assert delivered == [f"beside to {loopback} port {receiver.port}"]
        assert receiver.reached_from(beside, at=loopback, answered=True)


# --- state of a user-mode stack ----------------------------------------------------

ETH0 = 2


def route(destination: str, family: int, *, oif: int = ETH0, via: str = "") -> rtnetlink_dump.Route:
    """Return a route as the agent's rtnetlink reports it."""
    kind = IPv6Network if ":" in destination else IPv4Network
    return rtnetlink_dump.Route(
        kind(destination) if destination else None,
        IPv4Address(via) if via else None,
        oif,
        family,
    )


def test_userspace_stack_routes_of_lo_or_unrequested_family_are_omitted() -> None:
    """Routes of `lo` or of an unrequested family are omitted for a user-space network stack.

    gVisor has one routing table and returns all of it for either family.
    """
    wanted = [route("10.1.0.0/16", 4), route("", 4, via="10.1.0.1"), route("fd00::/64", 6)]
    routes = [
        route("127.0.0.0/8", 4, oif=rtnetlink.LO),
        route("fd00::/64", 4),
        route("10.1.0.0/16", 6),
        route("", 6, via="10.1.0.1"),
        *wanted,
    ]
    assert remote.of_main_table(routes) == wanted


def test_missing_reply_in_a_kernel_netns_is_final_at_once() -> None:
    """In a kernel's netns, a missing reply is final without waiting for user space."""
    with NetNS.own() as own:
        assert quiescence.agent_patience([own]) == 0.0
        assert not sockets.has_own_stack(own)
