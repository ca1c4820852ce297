"""The kernel's own answer to where a packet would go."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from linux import rtnetlink
from linux.rtnetlink_dump import route_to
from tests.linux.star_topology import Star


def test_a_neighbour_s_way_is_by_its_link(star: Star) -> None:
    """Directly, without a next hop in between."""
    found = route_to(star.netlink, star.station(0, 4))
    assert (found.refused, found.local, found.oif, found.via) == ("", False, 10, None)


def test_a_shared_address_goes_by_its_gateway(star: Star) -> None:
    """Over both families the next hop is told."""
    for family in (4, 6):
        found = route_to(star.netlink, star.shared(family).network_address)
        assert (found.oif, found.via) == (11, star.station(1, family))


def test_one_s_own_address_is_local(star: Star) -> None:
    """What is for the namespace itself goes no further."""
    assert route_to(star.netlink, ip_address("192.0.2.1")).local


def test_where_there_is_no_route_the_refusal_says_so(star: Star) -> None:
    """Nothing leads to an address that no route covers."""
    for nowhere in ("203.0.113.1", "2001:db8:ffff::1"):
        assert route_to(star.netlink, ip_address(nowhere)).refused == "no route"


def test_a_blackhole_is_told_from_no_route(star: Star) -> None:
    """A route that throws packets away is a route."""
    star.netlink.send([rtnetlink.add_blackhole(ip_network("203.0.113.0/24"))])
    assert route_to(star.netlink, ip_address("203.0.113.1")).refused == "blackhole"
