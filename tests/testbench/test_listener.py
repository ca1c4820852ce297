"""Tests of connections and datagrams between two namespaces: delivered, refused or dropped."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from harness.probe.sockets import RESET_ON_CLOSE, connected
from harness.testbench import listener as traffic
from harness.testbench.listener import (
    TRANSPORTS,
    Listener,
    Transport,
    ask_echo_service,
    broadcast,
    free_port,
)
from harness.testbench.netns_view import NetnsView, fixed
from harness.world.services import Services
from linux import netns, nftables, rtnetlink
from linux.netlink import Netlink
from tests.support.nft import add_rule
from tests.world.pair import PORT, pair

ADDRESSES = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
NOWHERE = {4: ip_address("203.0.113.1"), 6: ip_address("2001:db8:9::1")}
Ends = tuple[NetnsView, NetnsView]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Connect two namespaces by a veth pair."""
    with pair(["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]) as both:
        yield fixed("one", both[0]), fixed("other", both[1])


@pytest.fixture
def engaged(ends: Ends) -> Iterator[tuple[Listener, Listener, socket.socket]]:
    """Open a first listener, a second listener, and another client's connection to the first."""
    one, other = ends
    with (
        Listener(one, "tcp", address=ADDRESSES[4]) as listener,
        Listener(one, "tcp", address=ADDRESSES[4]) as beside,
        other.socket(socket.AF_INET, socket.SOCK_STREAM) as stray,
    ):
        stray.connect((str(ADDRESSES[4]), listener.port))
        yield listener, beside, stray


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_listener_reports_the_client(ends: Ends, transport: Transport, family: int) -> None:
    """Without address translation, listener and client report the same client address.

    The reply arrives at the client's socket.
    """
    one, other = ends
    with Listener(one, transport, address=ADDRESSES[family]) as listener:
        exchange = listener.reached_from(other, answered=True)
    assert exchange
    assert exchange.own == exchange.seen
    assert exchange.own[0] in {item.ip for item in other.interfaces()}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_request_without_listener_or_route_is_refused_at_once(
    ends: Ends, transport: Transport, family: int
) -> None:
    """A request without a listener or a route is refused without a wait.

    A listener on the loopback address cannot be reached by another address.
    """
    one, other = ends
    loopback = ip_address("127.0.0.1" if family == 4 else "::1")
    with Listener(one, transport, address=loopback) as listener:
        assert listener.reached_from(other, at=ADDRESSES[family]) is None
        assert listener.reached_from(other, at=NOWHERE[family]) is None
        assert listener.reached_from(one)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_source_ports_are_not_reused(ends: Ends, transport: Transport, family: int) -> None:
    """Each request uses a new source port, even if the kernel has few to choose from.

    NAT would change a source port that is used again.
    """
    one, other = ends
    with other.open() as space:
        netns.write_sysctls(space, {"net.ipv4.ip_local_port_range": "40000 40003"})
    with Listener(one, transport, address=ADDRESSES[family]) as listener:
        met = [listener.reached_from(other) for _ in range(20)]
    assert len({exchange.own for exchange in met if exchange}) == 20


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_dropped_request_raises_a_timeout(
    ends: Ends, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropped request raises an error, which names the client and the target."""
    one, other = ends
    monkeypatch.setattr(traffic, "BOUND", 0.1)
    with one.open() as space:
        add_rule(space, "input", nftables.iifname("eth0"), nftables.verdict("drop"))
    with (
        Listener(one, transport, address=ADDRESSES[4]) as listener,
        pytest.raises(TimeoutError, match=r"from other to 192\.0\.2\.1 port \d+"),
    ):
        listener.reached_from(other)


@contextmanager
def between(
    ends: Ends, listener: Listener, then: Callable[[socket.socket, socket.socket], object]
) -> Iterator[int]:
    """Relay connections to the listener, and return the relay's port.

    The client's data is passed on. Then `then` is called with both connections.
    """
    kept: list[socket.socket] = []

    def serve(middle: socket.socket) -> None:
        while True:
            try:
                near, _ = middle.accept()
            except OSError:
                return
            far = ends[0].socket(socket.AF_INET, socket.SOCK_STREAM)
            kept.extend((near, far))
            far.connect((str(ADDRESSES[4]), listener.port))
            far.send(near.recv(1024))
            then(near, far)

    with ends[0].socket(socket.AF_INET, socket.SOCK_STREAM) as middle:
        middle.bind((str(ADDRESSES[4]), 0))
        middle.listen()
        thread = threading.Thread(target=serve, args=(middle,))
        thread.start()
        try:
            yield middle.getsockname()[1]
        finally:
            middle.shutdown(socket.SHUT_RDWR)
            thread.join()
            for opened in kept:
                opened.close()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("open", r"received no reply within 0\.3 s"),
        ("closed", "before the connection closed"),
        ("reset", "before the connection closed"),
    ],
)
def test_connection_without_a_reply_is_an_error(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    """A connection without a reply is an error, even if the client's data arrives.

    A relay drops the reply, or closes the connection.
    """

    def end(near: socket.socket, far: socket.socket) -> None:
        if how != "open":
            far.recv(1024)
            if how == "reset":
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            near.close()

    with (
        Listener(ends[0], "tcp", address=ADDRESSES[4]) as listener,
        between(ends, listener, end) as port,
    ):
        if how == "open":
            assert listener.reached_from(ends[1], port=port)
            monkeypatch.setattr(traffic, "BOUND", 0.3)
        with pytest.raises(TimeoutError, match=message):
            listener.reached_from(ends[1], port=port, answered=True)


def test_connection_that_is_accepted_and_closed_is_not_delivered(
    ends: Ends, engaged: tuple[Listener, Listener, socket.socket]
) -> None:
    """A connection that is accepted and closed at once does not count as delivered.

    This holds even if the listener has an earlier connection.
    """
    listener, beside, _ = engaged

    def close_accepted() -> None:
        select.select([beside._socket], [], [], traffic.BOUND)
        for accepted, _ in beside._accepted():
            accepted.close()

    thread = threading.Thread(target=close_accepted)
    thread.start()
    assert listener.reached_from(ends[1], port=beside.port) is None
    thread.join()


def test_connection_that_its_client_notices_late_is_delivered(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is delivered even if its client notices late that it is established.

    The listener may accept earlier than that, so the client is polled again.
    """
    early = iter([False, False])
    monkeypatch.setattr(traffic, "connected", lambda call: next(early, True) and connected(call))
    with Listener(ends[0], "tcp", address=ADDRESSES[4]) as listener:
        assert listener.reached_from(ends[1])


def test_reply_from_another_address_does_not_count(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply does not count if its source is not the address that the datagram was sent to."""
    one, other = ends
    second = ip_address("192.0.2.3")
    with one.open() as space, Netlink(space) as netlink:
        netlink.send([rtnetlink.add_address(PORT, ip_interface("192.0.2.3/24"))])
    with Listener(one, "udp") as listener:
        assert listener.reached_from(other, at=second)
        assert listener.reached_from(other, at=ADDRESSES[4], answered=True)
        answer = Listener._answer

        def impatient(listener: Listener, *given: Any) -> None:
            monkeypatch.setattr(traffic, "BOUND", 0.1)  # the call has arrived by now
            answer(listener, *given)

        monkeypatch.setattr(Listener, "_answer", impatient)
        with pytest.raises(TimeoutError, match=r"to .*192\.0\.2\.3.* received no reply"):
            listener.reached_from(other, at=second, answered=True)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_delivered_requests_are_reported(ends: Ends, transport: Transport) -> None:
    """`delivered` reports the requests that arrive at the listener.

    It omits requests that are refused, have no route or reach another listener.
    """
    one, other = ends
    with (
        Listener(one, transport, address=ADDRESSES[4]) as listener,
        Listener(one, transport, address=ADDRESSES[4]) as beside,
    ):
        wrong = [
            (other, ADDRESSES[4], listener.port - 1),
            (other, ADDRESSES[6], listener.port),
            (other, ip_address("203.0.113.1"), listener.port),
            (other, ADDRESSES[4], beside.port),
        ]

        def settled() -> None:
            assert beside.reached_from(other)  # a control that is sent later

        assert listener.delivered(wrong, settled) == []
        delivered = listener.delivered([(other, ADDRESSES[4], listener.port)], settled)
        assert delivered == [f"other to 192.0.2.1 port {listener.port}"]


def test_connection_of_another_client_is_not_reported_as_delivered(
    ends: Ends, engaged: tuple[Listener, Listener, socket.socket]
) -> None:
    """`delivered` omits another client's connection when its own requests go elsewhere."""
    one, other = ends
    listener, beside, _ = engaged

    def settled() -> None:
        with Listener(one, "tcp", address=ADDRESSES[4]) as control:
            assert control.reached_from(other)

    assert listener.delivered([(other, ADDRESSES[4], beside.port)], settled) == []


def test_connection_with_other_data_is_not_accepted_as_the_request(
    ends: Ends, engaged: tuple[Listener, Listener, socket.socket]
) -> None:
    """A connection with other data is ignored; the requested one is accepted after it.

    If only the other connection arrives, nothing is delivered.
    """
    listener, beside, stray = engaged
    stray.send(b"an earlier one, tried again")
    exchange = listener.reached_from(ends[1], answered=True)
    assert exchange
    assert exchange.seen == exchange.own
    closed = beside.port
    beside.close()
    with ends[1].socket(socket.AF_INET, socket.SOCK_STREAM) as again:
        again.connect((str(ADDRESSES[4]), listener.port))
        assert listener.reached_from(ends[1], port=closed) is None


def test_free_port_can_be_bound(ends: Ends) -> None:
    """A listener can bind a free port.

    A second listener on the same port is refused.
    """
    port = free_port(ends[0], "tcp")
    with Listener(ends[0], "tcp", port=port), pytest.raises(OSError, match="in use"):
        Listener(ends[0], "tcp", port=port)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_echo_service_reports_the_client(ends: Ends, transport: Transport) -> None:
    """`ask_echo_service` returns the same client address from the service and the client."""
    one, other = ends
    with one.open() as space, Services.start({"one": (space, [ADDRESSES[4]])}):
        exchange = ask_echo_service(other, ADDRESSES[4], transport)
    assert exchange.own == exchange.seen
    assert exchange.own[0] == ip_address("192.0.2.2")


def test_broadcast_sends_by_every_protocol(ends: Ends) -> None:
    """`broadcast` sends packets by every protocol to the given address and to group addresses.

    It returns the number of packets that the kernel has accepted.
    """
    one, other = ends
    word = os.urandom(16)
    with one.capture() as wire:
        assert broadcast(other, [ADDRESSES[4]], port=9, payload=word) > 3
    frames = [frame for frame in wire.frames() if word in frame.data]
    assert {frame.kind.name for frame in frames} >= {"HOST", "BROADCAST", "MULTICAST"}
    assert broadcast(other, [ip_address("203.0.113.1")], port=9, payload=word) < broadcast(
        other, [ADDRESSES[4]], port=9, payload=word
    )
