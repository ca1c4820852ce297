"""Dumps of rtnetlink, compared with those of pyroute2, and route lookups."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.readiness import await_local
from linux.rtnetlink_dump import Link, Neighbour, Route, route_to
from tests.linux import decoder
from tests.linux.star_topology import Star

MAC = "02:42:0a:00:00:01"
RTN_LOCAL = 2


@pytest.fixture
def netlink(space: NetNS) -> Iterator[Netlink]:
    """Open a netlink socket in a namespace with a bridge, one port and addresses."""
    with Netlink(space) as opened:
        opened.send(
            [
                rtnetlink.add_bridge("br0", index=5),
                rtnetlink.add_veth(
                    "port", "peer", index=7, peer_index=8, master=5, mac=MAC, mtu=1400
                ),
                rtnetlink.set_link(8, up=True),
                rtnetlink.isolate_port(7),
                rtnetlink.add_address(5, ip_interface("10.0.0.1/24")),
                rtnetlink.add_address(5, ip_interface("fd00::1/64")),
            ]
        )
        yield opened


def test_links_agree_with_pyroute2(netlink: Netlink, space: NetNS) -> None:
    """Index, name, kind, state, MAC, MTU, master and peer of every link agree."""
    with decoder.rtnetlink(space) as ipr:
        expected = {
            item.get_attr("IFLA_IFNAME"): (
                item["index"],
                item.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
                item["state"] == "up",
                item.get_attr("IFLA_ADDRESS"),
                item.get_attr("IFLA_MTU"),
                item.get_attr("IFLA_MASTER"),
                item.get_attr("IFLA_LINK"),
            )
            for item in ipr.get_links()
        }
    found = {
        link.name: (
            link.ifindex,
            link.kind,
            link.up,
            link.mac,
            link.mtu,
            link.master,
            link.peer,
        )
        for link in rtnetlink_dump.links(netlink)
    }
    assert found == expected
    assert found["port"] == (7, "veth", True, MAC, 1400, 5, 8)


def test_link_by_name_equals_link_in_the_dump(netlink: Netlink) -> None:
    """Both queries give the same fields."""
    by_name = {name: rtnetlink_dump.link(netlink, name) for name in ("lo", "br0", "port", "peer")}
    assert {link.name: link for link in rtnetlink_dump.links(netlink)} == by_name


def test_bridge_port_has_state_and_isolation(netlink: Netlink) -> None:
    """A port with a carrier forwards at once; a link that is no port has no state."""

    def port() -> Link:
        return rtnetlink_dump.link(netlink, "port")

    assert (port().running, port().isolated) == (True, True)
    assert port().port_state == rtnetlink.BR_STATE_FORWARDING
    netlink.send([rtnetlink.isolate_port(7, isolated=False), rtnetlink.set_link(8, up=False)])
    assert (port().up, port().running, port().isolated) == (True, False, False)
    assert port().port_state != rtnetlink.BR_STATE_FORWARDING
    assert rtnetlink_dump.link(netlink, "br0").port_state is None


def test_addresses_have_their_link(netlink: Netlink) -> None:
    """Every address with its prefix, in order of link and family, or those of one link."""
    own = [ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")]
    found = rtnetlink_dump.addresses(netlink)
    told = [(item.ifindex, item.address) for item in found if not item.address.is_link_local]
    assert sorted(told, key=repr) == sorted(
        [
            *((5, item) for item in own),
            (rtnetlink.LO, ip_interface("127.0.0.1/8")),
            (rtnetlink.LO, ip_interface("::1/128")),
        ],
        key=repr,
    )
    assert rtnetlink_dump.addresses(netlink, index=5) == [
        item for item in found if item.ifindex == 5
    ]


@pytest.mark.parametrize("make", [rtnetlink_dump.addresses_request, rtnetlink_dump.routes_request])
def test_dump_of_unsupported_family_is_empty(
    netlink: Netlink, make: Callable[[int], Request]
) -> None:
    """The kernel answers such a request with all families."""
    request = make(socket.AF_APPLETALK)
    assert netlink.ask(request)
    assert not rtnetlink_dump.dump_family(netlink, request)


def test_point_to_point_address_is_the_local_end(netlink: Netlink, space: NetNS) -> None:
    """The peer's address is not the link's own."""
    with decoder.rtnetlink(space) as ipr:
        ipr.addr("add", index=5, local="10.5.0.1", address="10.5.0.2", prefixlen=32)
    found = [item.address for item in rtnetlink_dump.addresses(netlink, index=5)]
    assert ip_interface("10.5.0.1/32") in found


def test_address_is_tentative_during_dad(netlink: Netlink, space: NetNS) -> None:
    """An address with `nodad` is usable at once."""

    def flags(text: str) -> tuple[bool, bool]:
        (found,) = (
            item for item in rtnetlink_dump.addresses(netlink) if item.address == ip_interface(text)
        )
        return found.tentative, found.failed

    assert flags("fd00::1/64") == (False, False)
    netlink.send([rtnetlink.add_address(5, ip_interface("fd00::2/64"), nodad=False)])
    assert flags("fd00::2/64") == (True, False)


def test_local_addresses_equal_the_local_routes(space: NetNS) -> None:
    """Link-local addresses and those of `lo` too; no subnet, group or anycast address."""
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
    """Bridges and veth ends do."""
    resolves = {link.name: link.resolves for link in rtnetlink_dump.links(netlink)}
    assert resolves == {"lo": False, "br0": True, "port": True, "peer": True}


@pytest.mark.parametrize(
    ("text", "black"), [("10.9.0.0/16", "10.8.0.0/16"), ("fd09::/16", "fd08::/16")]
)
def test_routes_are_selected_by_table_and_kind(netlink: Netlink, text: str, black: str) -> None:
    """Each route is in its own table; kinds other than unicast show only when asked for."""
    network, swallowed = ip_network(text), ip_network(black)
    family = network.version
    via = ip_address("10.0.0.2" if family == 4 else "fd00::2")
    direct = ip_network("10.0.0.0/24" if family == 4 else "fd00::/64")

    def told(**options: Any) -> list[Route]:
        return [item for item in rtnetlink_dump.routes(netlink, **options) if item.family == family]

    netlink.send(
        [
            rtnetlink.add_route(network, via=via),
            rtnetlink.add_route(None, via=via, table=1000),
            rtnetlink.add_blackhole(swallowed),
        ]
    )
    unicast = [Route(direct, None, 5, family), Route(network, via, 5, family)]
    assert sorted(told(), key=repr) == sorted(unicast, key=repr)
    assert told(table=1000) == [Route(None, via, 5, family)]
    extra = set(told(every_kind=True)) - set(unicast)
    assert {route.destination for route in extra} == {swallowed}


def test_links_with_ra_routes_need_a_router_advertisement(netlink: Netlink, space: NetNS) -> None:
    """A static route through the link is not enough."""
    with decoder.rtnetlink(space) as ipr:
        ipr.route("add", dst="2001:db8::/32", gateway="fd00::2", oif=5)
        assert rtnetlink_dump.links_with_ra_routes(netlink) == []
        ipr.route("add", dst="::/0", gateway="fd00::3", oif=5, proto=9)
    assert rtnetlink_dump.links_with_ra_routes(netlink) == ["br0"]


def test_automatic_ipv6_routes_are_left_out(netlink: Netlink) -> None:
    """A link-local route of IPv4 is listed, as it was added."""
    links = [ip_network("169.254.0.0/16"), ip_network("fe80::/64")]
    netlink.send([rtnetlink.add_route(network, oif=5, replace=True) for network in links])
    told = {route.destination for route in rtnetlink_dump.routes(netlink)}
    assert links[0] in told
    assert links[1] not in told


@pytest.mark.parametrize("address", [ip_address("10.0.0.9"), ip_address("fd00::9")])
def test_neighbour_has_link_address_mac_and_state(
    netlink: Netlink, address: rtnetlink.Address
) -> None:
    """Both families are listed."""
    netlink.send([rtnetlink.add_neighbour(5, address, MAC)])
    found = [item for item in rtnetlink_dump.neighbours(netlink) if item.address == address]
    assert found == [Neighbour(5, address, MAC, rtnetlink.NUD_PERMANENT)]


def test_route_to_neighbour_has_link_and_no_gateway(star: Star) -> None:
    """The destination is on the link."""
    found = route_to(star.netlink, star.address(0, 4))
    assert (found.refused, found.local, found.oif, found.via) == ("", False, 10, None)


def test_route_to_remote_address_has_the_gateway(star: Star) -> None:
    """Both families are looked up."""
    for family in (4, 6):
        found = route_to(star.netlink, star.shared(family).network_address)
        assert (found.oif, found.via) == (11, star.address(1, family))


def test_route_to_own_address_is_local(star: Star) -> None:
    """Packets to it do not leave the namespace."""
    assert route_to(star.netlink, ip_address("192.0.2.1")).local


def test_route_to_uncovered_address_is_refused(star: Star) -> None:
    """There is no default route."""
    for nowhere in ("203.0.113.1", "2001:db8:ffff::1"):
        assert route_to(star.netlink, ip_address(nowhere)).refused == "no route"


def test_route_to_blackhole_differs_from_no_route(star: Star) -> None:
    """The lookup tells both refusals apart."""
    star.netlink.send([rtnetlink.add_blackhole(ip_network("203.0.113.0/24"))])
    assert route_to(star.netlink, ip_address("203.0.113.1")).refused == "blackhole"
