"""Route lookups of the kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from linux import rtnetlink
from linux.rtnetlink_dump import route_to
from tests.linux.star_topology import Star


def test_route_to_neighbour_has_link_and_no_gateway(star: Star) -> None:
    """The destination is on the link."""
    found = route_to(star.netlink, star.station(0, 4))
    assert (found.refused, found.local, found.oif, found.via) == ("", False, 10, None)


def test_route_to_remote_address_has_the_gateway(star: Star) -> None:
    """Both families are looked up."""
    for family in (4, 6):
        found = route_to(star.netlink, star.shared(family).network_address)
        assert (found.oif, found.via) == (11, star.station(1, family))


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
