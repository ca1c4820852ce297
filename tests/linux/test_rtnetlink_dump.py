"""Tests of rtnetlink dumps, which are compared with pyroute2's, and of route lookups."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.readiness import await_local
from linux.rtnetlink_dump import Link, LinkWatch, Neighbour, Route, RouteLookup, route_to
from tests.linux import decoder
from tests.linux.star_topology import Star

MAC = "02:42:0a:00:00:01"
RTN_LOCAL = 2


@pytest.fixture
def plain(space: NetNS) -> Iterator[Netlink]:
    """Open a netlink socket in a namespace whose only link is `lo`."""
    with Netlink(space) as opened:
        yield opened


@pytest.fixture
def netlink(plain: Netlink) -> Netlink:
    """Add a bridge, one port and addresses to the namespace."""
    plain.send(
        [
            rtnetlink.add_bridge("br0", index=5),
            rtnetlink.add_veth("port", "peer", index=7, peer_index=8, master=5, mac=MAC, mtu=1400),
            rtnetlink.set_link(8, up=True),
            rtnetlink.isolate_port(7),
            rtnetlink.add_address(5, ip_interface("10.0.0.1/24")),
            rtnetlink.add_address(5, ip_interface("fd00::1/64")),
        ]
    )
    return plain


def test_links_agree_with_pyroute2(netlink: Netlink, space: NetNS) -> None:
    """Index, name, kind, state, MAC, MTU, master and peer of each link agree with pyroute2."""
    with decoder.rtnetlink(space) as ipr:
        expected = {
            item.get_attr("IFLA_IFNAME"): (
                item["index"],
                item.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
                item["state"] == "up",
                *map(item.get_attr, ("IFLA_ADDRESS", "IFLA_MTU", "IFLA_MASTER", "IFLA_LINK")),
            )
            for item in ipr.get_links()
        }
    found = {
        link.name: (link.ifindex, link.kind, link.up, link.mac, link.mtu, link.master, link.peer)
        for link in rtnetlink_dump.links(netlink)
    }
    assert found == expected
    assert found["port"] == (7, "veth", True, MAC, 1400, 5, 8)


def test_link_by_name_equals_link_in_the_dump(netlink: Netlink) -> None:
    """A query for a link by name returns the same fields as a dump."""
    by_name = {name: rtnetlink_dump.link(netlink, name) for name in ("lo", "br0", "port", "peer")}
    assert {link.name: link for link in rtnetlink_dump.links(netlink)} == by_name


def test_bridge_port_has_state_and_isolation(netlink: Netlink) -> None:
    """A bridge port with a carrier has the state forwarding at once.

    A link that is no bridge port has no such state.
    """

    def port() -> Link:
        return rtnetlink_dump.link(netlink, "port")

    assert (port().running, port().isolated) == (True, True)
    assert port().port_state == rtnetlink.BR_STATE_FORWARDING
    netlink.send([rtnetlink.isolate_port(7, isolated=False), rtnetlink.set_link(8, up=False)])
    assert (port().up, port().running, port().isolated) == (True, False, False)
    assert port().port_state != rtnetlink.BR_STATE_FORWARDING
    assert rtnetlink_dump.link(netlink, "br0").port_state is None


def test_dumped_addresses_have_their_link(netlink: Netlink) -> None:
    """A dump has every address with its prefix length and link.

    It can be limited to one link.
    """
    found = rtnetlink_dump.addresses(netlink)
    assert {
        (item.ifindex, str(item.address)) for item in found if not item.address.is_link_local
    } == {(1, "127.0.0.1/8"), (1, "::1/128"), (5, "10.0.0.1/24"), (5, "fd00::1/64")}
    assert rtnetlink_dump.addresses(netlink, index=5) == [
        item for item in found if item.ifindex == 5
    ]


@pytest.mark.parametrize("make", [rtnetlink_dump.addresses_request, rtnetlink_dump.routes_request])
def test_dump_of_unsupported_family_is_empty(
    netlink: Netlink, make: Callable[[int], Request]
) -> None:
    """A dump of an unsupported family is empty.

    For such a family the kernel itself returns the entries of all families.
    """
    request = make(socket.AF_APPLETALK)
    assert netlink.ask(request)
    assert not rtnetlink_dump.dump_family(netlink, request)


def test_point_to_point_address_is_the_local_end(netlink: Netlink, space: NetNS) -> None:
    """The address of a point-to-point link is that of the local end, not of its peer."""
    with decoder.rtnetlink(space) as ipr:
        ipr.addr("add", index=5, local="10.5.0.1", address="10.5.0.2", prefixlen=32)
    found = [item.address for item in rtnetlink_dump.addresses(netlink, index=5)]
    assert ip_interface("10.5.0.1/32") in found


def test_address_is_tentative_during_dad(netlink: Netlink, space: NetNS) -> None:
    """An address is tentative during duplicate address detection, unless `nodad` is set."""

    def flags(text: str) -> tuple[bool, bool]:
        (found,) = (
            item for item in rtnetlink_dump.addresses(netlink) if item.address == ip_interface(text)
        )
        return found.tentative, found.failed

    assert flags("fd00::1/64") == (False, False)
    netlink.send([rtnetlink.add_address(5, ip_interface("fd00::2/64"), nodad=False)])
    assert flags("fd00::2/64") == (True, False)


def test_local_addresses_equal_the_local_routes(space: NetNS) -> None:
    """`local_addresses` returns the destinations of the kernel's local routes.

    Link-local addresses and those of `lo` are included. Subnets, groups and anycast addresses are
    not.
    """
    own = [ip_interface(text) for text in ("fd00::12:3456/64", "fe80::7/64")]
    # a router has anycast addresses
    netns.write_sysctls(space, {"net.ipv6.conf.all.forwarding": 1})
    with Netlink(space) as netlink:
        netlink.send(
            [rtnetlink.add_bridge("br0", index=5, up=False), rtnetlink.no_link_local("br0")]
        )
        netlink.send([rtnetlink.add_address(5, item) for item in own])
        netlink.send([rtnetlink.set_link(5, up=True)])
        await_local(netlink, [item.ip for item in own])
        found = rtnetlink_dump.local_addresses(netlink)
    with decoder.rtnetlink(space) as ipr:
        rows = ipr.get_routes(family=socket.AF_INET6, table=255)
    assert {row["type"] for row in rows} > {RTN_LOCAL}
    local = {ip_address(row.get_attr("RTA_DST")) for row in rows if row["type"] == RTN_LOCAL}
    assert found == local == {*(item.ip for item in own), ip_address("::1")}


def test_lo_resolves_no_neighbours(netlink: Netlink) -> None:
    """Links such as bridges and veth ends resolve neighbours, but `lo` does not."""
    resolves = {link.name: link.resolves for link in rtnetlink_dump.links(netlink)}
    assert resolves == {"lo": False, "br0": True, "port": True, "peer": True}


@pytest.mark.parametrize(
    ("text", "black"), [("10.9.0.0/16", "10.8.0.0/16"), ("fd09::/16", "fd08::/16")]
)
def test_routes_are_selected_by_table_and_kind(netlink: Netlink, text: str, black: str) -> None:
    """A query returns the routes of one table.

    It returns only unicast routes, unless all kinds are requested.
    """
    network, swallowed = ip_network(text), ip_network(black)
    family = network.version
    via = ip_address("10.0.0.2" if family == 4 else "fd00::2")
    direct = ip_network("10.0.0.0/24" if family == 4 else "fd00::/64")

    def selected(**options: Any) -> list[Route]:
        return [item for item in rtnetlink_dump.routes(netlink, **options) if item.family == family]

    netlink.send(
        [
            rtnetlink.add_route(network, via=via),
            rtnetlink.add_route(None, via=via, table=1000),
            rtnetlink.add_blackhole(swallowed),
        ]
    )
    unicast = [Route(direct, None, 5, family), Route(network, via, 5, family)]
    assert sorted(selected(), key=repr) == sorted(unicast, key=repr)
    assert selected(table=1000) == [Route(None, via, 5, family)]
    extra = set(selected(every_kind=True)) - set(unicast)
    assert {route.destination for route in extra} == {swallowed}


def test_links_with_ra_routes_need_a_router_advertisement(netlink: Netlink, space: NetNS) -> None:
    """`links_with_ra_routes` returns links with a route from a router advertisement.

    A link that has only static routes is omitted.
    """
    with decoder.rtnetlink(space) as ipr:
        ipr.route("add", dst="2001:db8::/32", gateway="fd00::2", oif=5)
        assert rtnetlink_dump.links_with_ra_routes(netlink) == []
        ipr.route("add", dst="::/0", gateway="fd00::3", oif=5, proto=9)
    assert rtnetlink_dump.links_with_ra_routes(netlink) == ["br0"]


def test_automatic_ipv6_routes_are_left_out(netlink: Netlink) -> None:
    """IPv6 routes that the kernel adds by itself are omitted.

    An added IPv4 route to link-local addresses is listed.
    """
    links = [ip_network("169.254.0.0/16"), ip_network("fe80::/64")]
    netlink.send([rtnetlink.add_route(network, oif=5, replace=True) for network in links])
    selected = {route.destination for route in rtnetlink_dump.routes(netlink)}
    assert links[0] in selected
    assert links[1] not in selected


@pytest.mark.parametrize("address", [ip_address("10.0.0.9"), ip_address("fd00::9")])
def test_neighbour_has_link_address_mac_and_state(
    netlink: Netlink, address: rtnetlink.Address
) -> None:
    """A neighbour entry of either family has its link, address, MAC and state."""
    netlink.send([rtnetlink.add_neighbour(5, address, MAC)])
    found = [item for item in rtnetlink_dump.neighbours(netlink) if item.address == address]
    assert found == [Neighbour(5, address, MAC, rtnetlink.NUD_PERMANENT)]


@pytest.mark.parametrize("family", [4, 6])
def test_route_to_returns_link_gateway_and_reason(star: Star, family: int) -> None:
    """`route_to` returns the link and gateway of a route, or a reason without one.

    Targets are a neighbour, a remote address, an own address, a blackhole and an unrouted address.
    """
    black, nowhere = {
        4: ("203.0.113.0", "192.0.3.1"),
        6: ("2001:db8:fff::", "2001:db8:ffff::1"),
    }[family]
    star.netlink.send([rtnetlink.add_blackhole(ip_network(f"{black}/{24 if family == 4 else 48}"))])
    remote = star.shared(family).network_address
    own = ip_address("192.0.2.1" if family == 4 else "2001:db8::1")
    assert route_to(star.netlink, star.address(0, family)) == RouteLookup(oif=10)
    assert route_to(star.netlink, remote) == RouteLookup(oif=11, via=star.address(1, family))
    assert route_to(star.netlink, own).local
    assert route_to(star.netlink, ip_address(black)).refused == "blackhole"
    assert route_to(star.netlink, ip_address(nowhere)).refused == "no route"


# --- watched ----------------------------------------------------------------------


@pytest.fixture
def watch(space: NetNS) -> Iterator[LinkWatch]:
    """Watch the namespace's links, after a first dump."""
    with LinkWatch(space) as opened:
        opened.links()
        yield opened


def change(netlink: Netlink, *requests: Request) -> None:
    """Send requests that change the links, and check that they did."""
    before = rtnetlink_dump.links(netlink)
    netlink.send(list(requests))
    # A query by name makes the kernel bring the link's state up to date.
    rtnetlink_dump.links_named(netlink, [link.name for link in rtnetlink_dump.links(netlink)])
    assert rtnetlink_dump.links(netlink) != before


def test_watch_follows_every_change_of_a_link(watch: LinkWatch, plain: Netlink) -> None:
    """A watch has the current state of the links after every kind of change.

    A link is made, gets a carrier, a master and an MTU, is removed, and is made again as another
    kind.
    """
    pair = rtnetlink.add_veth("near", "far", index=20, peer_index=21)
    for requests in (
        [pair],
        [rtnetlink.set_link(21, up=True)],
        [rtnetlink.add_bridge("br1", index=9)],
        [rtnetlink.set_link(20, master=9)],
        [rtnetlink.set_link(20, mtu=1400)],
        [rtnetlink.isolate_port(20)],
        [rtnetlink.del_link("near")],
        [rtnetlink.add_bridge("near", index=20)],
    ):
        change(plain, *requests)
        assert watch.links() == rtnetlink_dump.links(plain)


def test_watch_dumps_only_after_a_notification(
    watch: LinkWatch, plain: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch dumps the links once after each change, however often they are read."""
    dumps: list[Netlink] = []

    def links(by: Netlink) -> list[rtnetlink_dump.Link]:
        dumps.append(by)
        return list_links(by)

    list_links = rtnetlink_dump.links
    monkeypatch.setattr(rtnetlink_dump, "links", links)
    watch.links()
    watch.links()
    assert not dumps
    plain.send([rtnetlink.add_bridge("br1")])
    assert [item.name for item in watch.links()] == ["lo", "br1"]
    watch.links()
    assert len(dumps) == 1


def test_link_watch_dumps_anew_after_lost_notifications(watch: LinkWatch, plain: Netlink) -> None:
    """If notifications are lost, a watch dumps the links.

    Later notifications are noticed again.
    """
    with socket.socket(fileno=os.dup(watch.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the smallest buffer: a few
    for number in range(200):
        plain.send([rtnetlink.set_link(rtnetlink.LO, mtu=1400 + number)])
    change(plain, rtnetlink.add_bridge("br1"))
    assert watch.links() == rtnetlink_dump.links(plain)
    change(plain, rtnetlink.del_link("br1"))
    assert watch.links() == rtnetlink_dump.links(plain)


def test_watch_repeats_a_failed_dump(
    watch: LinkWatch, plain: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a dump fails, a watch repeats the dump at its next read.

    No new notification is needed.
    """
    plain.send([rtnetlink.add_bridge("br1")])
    with monkeypatch.context() as patched:
        patched.setattr(rtnetlink_dump, "links", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            watch.links()
    assert watch.links() == rtnetlink_dump.links(plain)
