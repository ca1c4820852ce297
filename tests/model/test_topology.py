"""Tests of the topology's addresses: none exists in the real world, and each has one owner."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import combinations

import pytest

from harness.model.plan import FAMILIES, Family
from harness.model.topology import PRIVATE, Interface, Network, Topology, pick

DOCUMENTATION = [
    ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
LONGEST = Topology(routers=30)


def outside(world: Topology) -> list[Interface]:
    """Return all addresses of the world except the host's own."""
    ends = [
        *(world.host, world.attacker, world.lan_gateway),
        *(world.internet, world.resolver, world.internet_gateway),
        *(end for number in range(1, world.routers + 1) for end in world.link(number)),
    ]
    return [interface for end in ends for interface in end]


def behind(world: Topology) -> list[Interface]:
    """Return every address on the host's own networks."""
    return [*world.br0, *world.ns1, *world.ns2]


def within(interface: Interface, ranges: tuple[Network, ...] | list[Network]) -> bool:
    """Return whether the address is in one of the ranges."""
    return any(interface.ip in network for network in ranges)


def test_addresses_outside_the_host_are_documentation_ranges() -> None:
    """Addresses of the LAN, routers and internet are from ranges reserved for documentation.

    No packet to them can reach a real machine.
    """
    assert [one for one in outside(LONGEST) if not within(one, DOCUMENTATION)] == []


def test_routes_to_the_host_cover_only_its_private_networks() -> None:
    """The routes to the host cover its own networks, all private, and no other address."""
    assert all(within(interface, PRIVATE) for interface in behind(LONGEST))
    assert not any(within(interface, PRIVATE) for interface in outside(LONGEST))


def test_topology_addresses_are_unique() -> None:
    """Every address has one owner, even on the longest chain."""
    addresses = [interface.ip for interface in (*outside(LONGEST), *behind(LONGEST))]
    assert len(addresses) == len(set(addresses))


def test_topology_links_have_disjoint_subnets() -> None:
    """Both ends of a link are in one subnet.

    The subnets of links, LANs and the internet do not overlap.
    """
    links = [LONGEST.link(number) for number in range(1, LONGEST.routers + 1)]
    for family in FAMILIES:
        subnets = [pick(end, family).network for near, end in links]
        assert subnets == [pick(near, family).network for near, end in links]
        subnets += [pick(LONGEST.host, family).network, pick(LONGEST.internet, family).network]
        subnets += [pick(LONGEST.br0, family).network]
        assert not any(one.overlaps(other) for one, other in combinations(subnets, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_on_a_link_share_a_subnet(family: Family) -> None:
    """The addresses at all ends of a link are in one subnet."""
    world = Topology()
    for link in (
        (world.host, world.attacker, world.lan_gateway),
        (world.internet, world.resolver, world.internet_gateway),
        (world.br0, world.ns1, world.ns2),
    ):
        assert len({pick(end, family).network for end in link}) == 1


@pytest.mark.parametrize("routers", [0, 31, -1])
def test_invalid_number_of_routers_is_refused(routers: int) -> None:
    """A world has at least one router, and at most as many as there are subnets for links."""
    with pytest.raises(ValueError, match=f"1 to 30 routers, not {routers}"):
        Topology(routers=routers)


def test_owner_of_the_bridge_address_is_the_host() -> None:
    """Each address has the name of its owner; the address of br0 belongs to the host."""
    owners = Topology().owners()
    assert owners[pick(Topology().br0, 4).ip] == "host"
    assert owners[pick(Topology().resolver, 6).ip] == "internet"
    assert set(owners.values()) == {"host", "attacker", "internet", "ns1", "ns2"}


def test_error_for_missing_family_lists_addresses_of_other_family() -> None:
    """The error for a missing family lists the owner's addresses of the other family."""
    (four, six) = Topology().host
    assert pick((four, six), 6) == six
    with pytest.raises(LookupError, match=r"no IPv6 address among .*198\.51\.100\.7"):
        pick((four,), 6)
