"""What the kernel tells, held against another decoder of the same kernel."""

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
from linux.rtnetlink_dump import Link, Neighbour, Route
from tests.linux import decoder

MAC = "02:42:0a:00:00:01"
RTN_LOCAL = 2


@pytest.fixture
def netlink(space: NetNS) -> Iterator[Netlink]:
    """A netlink socket of a namespace with a bridge, one port and addresses."""
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


def test_links_are_as_another_decoder_reads_them(netlink: Netlink, space: NetNS) -> None:
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


def test_one_link_is_told_as_among_all(netlink: Netlink) -> None:
    """Looked up by name or listed, a link is the same."""
    by_name = {name: rtnetlink_dump.link(netlink, name) for name in ("lo", "br0", "port", "peer")}
    assert {link.name: link for link in rtnetlink_dump.links(netlink)} == by_name


def test_a_port_tells_its_state(netlink: Netlink) -> None:
    """A port that carries forwards at once; isolation shows; what is no port has no state."""

    def port() -> Link:
        return rtnetlink_dump.link(netlink, "port")

    assert (port().running, port().isolated) == (True, True)
    assert port().port_state == rtnetlink.BR_STATE_FORWARDING
    netlink.send([rtnetlink.isolate_port(7, isolated=False), rtnetlink.set_link(8, up=False)])
    assert (port().up, port().running, port().isolated) == (True, False, False)
    assert port().port_state != rtnetlink.BR_STATE_FORWARDING
    assert rtnetlink_dump.link(netlink, "br0").port_state is None


def test_addresses_are_told_with_their_link(netlink: Netlink) -> None:
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


@pytest.mark.parametrize(
    "question", [rtnetlink_dump.addresses_request, rtnetlink_dump.routes_request]
)
def test_what_a_family_has_that_the_kernel_lacks_is_nothing(
    netlink: Netlink, question: Callable[[int], Request]
) -> None:
    """Such a question it takes for one about all families."""
    request = question(socket.AF_APPLETALK)
    assert netlink.ask(request)
    assert not rtnetlink_dump.dump_family(netlink, request)


def test_an_address_with_a_peer_is_told_by_its_own_end(netlink: Netlink, space: NetNS) -> None:
    """Of a point-to-point address the near end is what the link answers to."""
    with decoder.rtnetlink(space) as ipr:
        ipr.addr("add", index=5, local="10.5.0.1", address="10.5.0.2", prefixlen=32)
    found = [item.address for item in rtnetlink_dump.addresses(netlink, index=5)]
    assert ip_interface("10.5.0.1/32") in found


def test_an_address_tells_whether_it_can_be_used(netlink: Netlink, space: NetNS) -> None:
    """While duplicates are looked for an address is tentative; where there is one, it failed."""

    def flags(text: str) -> tuple[bool, bool]:
        (found,) = (
            item for item in rtnetlink_dump.addresses(netlink) if item.address == ip_interface(text)
        )
        return found.tentative, found.failed

    assert flags("fd00::1/64") == (False, False)
    netlink.send([rtnetlink.add_address(5, ip_interface("fd00::2/64"), nodad=False)])
    assert flags("fd00::2/64") == (True, False)


def test_the_addresses_taken_in_are_the_local_routes(space: NetNS) -> None:
    """Of every link, `lo` and link-local ones too; no subnet, group or anycast address."""
    own = [ip_interface(text) for text in ("fd00::12:3456/64", "fe80::7/64")]
    netns.write_sysctls(
        space, {"net.ipv6.conf.all.forwarding": 1}
    )  # a router has anycast addresses
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


def test_on_lo_nobody_is_looked_for(netlink: Netlink) -> None:
    """Neighbours are resolved on a cable and on a bridge, and not on `lo`."""
    resolves = {link.name: link.resolves for link in rtnetlink_dump.links(netlink)}
    assert resolves == {"lo": False, "br0": True, "port": True, "peer": True}


@pytest.mark.parametrize(
    ("text", "black"), [("10.9.0.0/16", "10.8.0.0/16"), ("fd09::/16", "fd08::/16")]
)
def test_routes_are_told_by_table_and_kind(netlink: Netlink, text: str, black: str) -> None:
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


def test_links_of_which_a_router_has_told_are_known(netlink: Netlink, space: NetNS) -> None:
    """By a route that has come with an advertisement, and by no other."""
    with decoder.rtnetlink(space) as ipr:
        ipr.route("add", dst="2001:db8::/32", gateway="fd00::2", oif=5)
        assert rtnetlink_dump.links_with_ra_routes(netlink) == []
        ipr.route("add", dst="::/0", gateway="fd00::3", oif=5, proto=9)
    assert rtnetlink_dump.links_with_ra_routes(netlink) == ["br0"]


def test_routes_that_every_link_has_are_those_of_ipv6(netlink: Netlink) -> None:
    """Of link-local networks IPv4's is told: who has a route there was given it."""
    links = [ip_network("169.254.0.0/16"), ip_network("fe80::/64")]
    netlink.send([rtnetlink.add_route(network, oif=5, replace=True) for network in links])
    told = {route.destination for route in rtnetlink_dump.routes(netlink)}
    assert links[0] in told
    assert links[1] not in told


@pytest.mark.parametrize("address", [ip_address("10.0.0.9"), ip_address("fd00::9")])
def test_neighbours_are_told(netlink: Netlink, address: rtnetlink.Address) -> None:
    """An entry has its link, address, MAC and state."""
    netlink.send([rtnetlink.add_neighbour(5, address, MAC)])
    found = [item for item in rtnetlink_dump.neighbours(netlink) if item.address == address]
    assert found == [Neighbour(5, address, MAC, rtnetlink.NUD_PERMANENT)]
