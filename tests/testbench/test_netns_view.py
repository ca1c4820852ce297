"""Tests of views, which show the state of a namespace without keeping the namespace alive."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network

import pytest

from harness.testbench.netns_view import NetnsView, fixed, reachable_abstract_sockets, until
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS
from tests.support.processes import descriptors, nothing_stays_open
from tests.world.pair import PORT, pair

ADDRESSES = ["192.0.2.1/24", "198.51.100.1/24", "2001:db8:5::1/64"]


@pytest.fixture
def view() -> Iterator[NetnsView]:
    """Return the view of one end of a veth pair.

    It has addresses, a default route and a neighbour.
    """
    with pair(ADDRESSES, ["192.0.2.2/24"]) as (one, _), Netlink(one) as netlink:
        netlink.send(
            [
                rtnetlink.add_route(None, via=ip_address("192.0.2.2")),
                rtnetlink.add_blackhole(ip_network("203.0.113.0/24")),
                rtnetlink.add_neighbour(PORT, ip_address("192.0.2.9"), "02:00:00:00:00:09"),
            ]
        )
        yield fixed("left", one)


def test_view_shows_links_addresses_routes_and_neighbours(view: NetnsView) -> None:
    """A view returns the links, addresses, routes and neighbours of its namespace."""
    assert set(view.links()) == {"lo", "eth0"}
    assert view.links()["eth0"].kind == "veth"
    assert set(view.interfaces("eth0")) == {ip_interface(text) for text in ADDRESSES}
    assert set(view.interfaces()) == {
        *(ip_interface(text) for text in ADDRESSES),
        ip_interface("127.0.0.1/8"),
        ip_interface("::1/128"),
    }
    assert view.address(4) == ip_address("192.0.2.1")
    assert view.address(6) == ip_address("2001:db8:5::1")
    routes = {(route.destination, route.via) for route in view.routes()}
    assert (None, ip_address("192.0.2.2")) in routes
    assert (ip_network("203.0.113.0/24"), None) in routes
    assert ip_address("192.0.2.9") in {neighbour.address for neighbour in view.neighbours()}


def test_view_lists_ipv4_addresses_first(view: NetnsView, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv4 addresses come before IPv6 addresses, in whatever order they are reported."""
    dump = rtnetlink_dump.addresses
    monkeypatch.setattr(
        rtnetlink_dump, "addresses", lambda *given, **named: dump(*given, **named)[::-1]
    )
    assert [item.version for item in view.interfaces("eth0")] == [4, 4, 6]


def test_view_reports_missing_objects() -> None:
    """A missing address is `None`.

    The error for an unknown link or sysctl names it.
    """
    with NetNS.new() as space:
        empty = fixed("empty", space)
        assert (empty.address(4), empty.address(6), empty.interfaces()) == (None, None, [])
        with pytest.raises(NetlinkError, match="look up link eth9"):
            empty.interfaces("eth9")
        with pytest.raises(FileNotFoundError, match="nothing"):
            empty.sysctl("net.ipv4.nothing")


def test_view_returns_sysctls_of_its_namespace(view: NetnsView) -> None:
    """A view returns the sysctl value that was set in its namespace."""
    assert view.sysctl("net.ipv4.ip_forward") == "0"
    view.tune({"net.ipv4.ip_forward": 1})
    assert view.sysctl("net.ipv4.ip_forward") == "1"


def test_views_of_one_namespace_have_one_identity(view: NetnsView) -> None:
    """Two views of one namespace have the same identity, even with different names."""
    again = NetnsView("other name", view.open)
    assert again.identity == view.identity
    with NetNS.new() as elsewhere:
        assert fixed("left", elsewhere).identity != view.identity


def test_view_does_not_keep_the_namespace_open(view: NetnsView) -> None:
    """No query of a view leaves a file descriptor open."""
    with nothing_stays_open():
        view.links()
        view.interfaces("eth0")
        view.routes()
        view.neighbours()
        view.sysctl("net.ipv4.ip_forward")
        view.tune({"net.ipv4.ip_forward": 0})
        assert view.identity
        with pytest.raises(NetlinkError):
            view.interfaces("eth9")


def test_socket_of_a_view_is_inside_its_namespace(view: NetnsView) -> None:
    """A view's socket is inside the namespace, and is the only descriptor that stays open.

    The socket can be bound to an address that exists only there.
    """
    gc.collect()  # or leftovers of earlier tests are closed meanwhile
    before = len(descriptors())
    with view.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("192.0.2.1", 0))
        assert len(descriptors()) == before + 1


def test_abstract_sockets_are_reachable_in_their_netns(view: NetnsView) -> None:
    """An abstract Unix socket is found and can be connected to in its own netns only."""
    with NetNS.new() as elsewhere, view.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("")
        assert reachable_abstract_sockets(view, view) == set()
        listener.listen()
        name = listener.getsockname()[1:].decode()
        assert reachable_abstract_sockets(view, view) == {name}
        assert reachable_abstract_sockets(view, fixed("elsewhere", elsewhere)) == set()


# --- waiting ------------------------------------------------------------------------

MANY = 2000


def test_lost_notifications_trigger_a_check_of_the_condition() -> None:
    """If notifications are lost, a wait checks its condition anew.

    Notifications are lost when, for example, a thousand containers end and the socket's buffer
    overflows.
    """
    looks: list[None] = []
    address = IPv4Interface("192.0.2.1/32")
    with NetNS.new() as space, Netlink(space) as opened:
        change = [
            rtnetlink.add_address(rtnetlink.LO, address),
            rtnetlink.del_address(rtnetlink.LO, address),
        ]

        def condition() -> bool:
            if not looks:
                opened.send(change * (MANY // 2))
            looks.append(None)
            return len(looks) > 1

        until(fixed("somewhere", space), condition, "it has been looked at twice")


def test_unmet_condition_of_a_wait_is_named() -> None:
    """If a wait's condition is unmet at the time limit, the error names the condition."""
    with (
        NetNS.new() as space,
        pytest.raises(TimeoutError, match=r"pigs fly: not yet true in somewhere"),
    ):
        until(fixed("somewhere", space), lambda: False, "pigs fly", bound=0.05)
