"""Which subnet a network has: one that nobody else uses, or none at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_interface
from itertools import pairwise
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import DEFAULT_NETWORK, GATEWAY, Bridge, Family
from harness.model.topology import Interface, Network, pick
from harness.plugin.marks import requirement
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux import rtnetlink
from linux.netlink import Netlink, Request
from suites.isolation.refusing import refused
from suites.support.three_containers import both_families

SEVERAL: Final = 4
MANY: Final = 64
"""More than there are to choose from in turn."""
DRAWN: Final = 12
TAKEN: Final[dict[int, Network]] = {
    4: IPv4Network("172.30.16.0/20"),
    6: IPv6Network("fd00:30:16::/48"),
}
"""What another network, or a route of the operator's, is on."""


# --- a subnet of the runtime's choice ----------------------------------------------


@requirement("NET-1")
@both_families
def test_what_the_runtime_chooses_overlaps_nothing(
    scene: Scene, host: NetnsView, family: Family
) -> None:
    """Neither the other networks, the default one among them, nor any route of the host."""
    before = routed(host, family)
    chosen = [
        subnet(scene.network(f"n{number}", ipv6=family == 6).facts.gateways, family)
        for number in range(SEVERAL)
    ]
    for number, one in enumerate(chosen):
        assert not [item for item in (*before, *chosen[:number]) if one.overlaps(item)]


@requirement("NET-1")
@both_families
@pytest.mark.parametrize("kind", ["wider", "narrower", "connected"])
def test_it_keeps_clear_of_what_an_operator_has_routed(
    scene: Scene, host: NetnsView, family: Family, kind: str
) -> None:
    """A route to what it would else have chosen, to more or to a part, by whatever way."""
    operated = related(next(choices(scene, family)), kind)
    with operator(host, operated, connected=kind == "connected"):
        assert operated in routed(host, family)
        assert not [item for item in choices(scene, family) if item.overlaps(operated)]


# --- a subnet that was asked for ---------------------------------------------------------


@requirement("NET-1", "NET-5")
@both_families
def test_a_subnet_that_was_asked_for_is_the_networks(scene: Scene, family: Family) -> None:
    """On its bridge, whose address is the gateway's, and routed there by the host."""
    made = scene.network("asked", **asked(TAKEN[family]))
    scene.container("first", Bridge("asked"))  # without which there may be no bridge yet
    assert subnet(made.facts.gateways, family) == TAKEN[family]
    assert made.facts.interface is not None
    bridges = scene.place(GATEWAY)
    assert pick(made.facts.gateways, family) in bridges.interfaces(made.facts.interface)
    assert TAKEN[family] in routed(bridges, family)


@requirement("NET-7")
@both_families
@pytest.mark.parametrize("other", ["network", "default network", "route", "uplink", "br0"])
def test_an_overlapping_subnet_is_refused(
    scene: Scene, host: NetnsView, family: Family, other: str
) -> None:
    """With another network, the default one, a route, or a network that the host is on.

    Be it the same, a wider or a narrower one.
    """
    with in_use(scene, host, other, family) as used:
        for kind in ("same", "wider", "narrower"):
            refused(scene.runtime, host, **asked(related(used, kind)))


@requirement("NET-7")
@pytest.mark.parametrize(
    "options",
    [
        {"subnet": "172.30.16.0/33"},
        {"subnet": "172.30.256.0/24"},
        {"subnet": "172.30.16.1/32"},
        {"subnet": "all"},
        {"subnet": "224.0.16.0/20"},
        {"subnet": "127.0.16.0/20"},
        {"subnet": "172.30.16.0/20", "gateway": "172.30.32.1"},
        {"subnet": "172.30.16.0/20", "gateway": "172.30.16.0"},
        {"subnet": "172.30.16.0/20", "gateway": "172.30.31.255"},
        {"subnet": "172.30.16.0/20", "gateway": "first"},
        {"subnet": "172.30.16.0/20", "ip_range": "172.30.32.0/24"},
        {"subnet": "172.30.16.0/20", "ip_range": "172.30.0.0/16"},
        pytest.param({"subnet6": "fd00:30:16::/129"}, marks=requirement("V6-1")),
        pytest.param({"subnet6": "ff02::/64"}, marks=requirement("V6-1")),
        pytest.param(
            {"subnet6": "fd00:30:16::/64", "gateway6": "fd00:30:17::1"}, marks=requirement("V6-1")
        ),
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_a_malformed_subnet_is_refused(
    runtime: Adapter, host: NetnsView, options: dict[str, str]
) -> None:
    """So is a gateway or a range that is not inside."""
    refused(runtime, host, **options)


@requirement("NET-7")
@both_families
def test_a_subnet_that_says_an_address_in_it_is_taken_as_declared(
    scene: Scene, host: NetnsView, family: Family
) -> None:
    """Refused, or taken for the subnet that this address is in."""
    wanted = TAKEN[family]
    option = {"subnet" if family == 4 else "subnet6": f"{wanted[5]}/{wanted.prefixlen}"}
    if scene.runtime.dialect.host_bits == "refused":
        refused(scene.runtime, host, **option)
    else:
        made = scene.network("loose", **option)
        assert subnet(made.facts.gateways, family) == wanted


# --- what there is ---------------------------------------------------------------------


def asked(wanted: Network) -> dict[str, Network]:
    """The option that asks for a subnet."""
    return {"subnet" if wanted.version == 4 else "subnet6": wanted}


def related(network: Network, how: str) -> Network:
    """A network, one twice as wide around it, or the upper quarter of it."""
    found: Network = network
    if how == "wider":
        found = network.supernet()
    elif how == "narrower":
        *_, found = network.subnets(2)
    return found


def subnet(gateways: tuple[Interface, ...], family: Family) -> Network:
    """The subnet that a network's gateway is on."""
    return pick(gateways, family).network


def routed(host: NetnsView, family: Family) -> list[Network]:
    """What the host has routes to, but the default route."""
    return [
        route.destination
        for route in host.routes()
        if route.destination is not None and route.destination.version == family
    ]


@contextmanager
def in_use(scene: Scene, host: NetnsView, by: str, family: Family) -> Iterator[Network]:
    """A subnet that somebody uses while the body runs."""
    match by:
        case "network":
            scene.network("first", **asked(TAKEN[family]))
            yield TAKEN[family]
        case "default network":
            gateways = scene.runtime.network_facts(DEFAULT_NETWORK).gateways
            yield next(
                (item.network for item in gateways if item.version == family),
                pick(scene.world.topology.br0, family).network,
            )
        case "route":
            with operator(host, TAKEN[family]):
                yield TAKEN[family]
        case _:
            name = "host" if by == "uplink" else "br0"
            yield pick(getattr(scene.world.topology, name), family).network


def choices(scene: Scene, family: Family) -> Iterator[Network]:
    """What it chooses for one network after the other, till there is nothing new to come.

    Some choose the first that is free, some go round: Docker among 31, of which it takes the first
    twice in a row. Some draw, and from so many that nothing is to be waited for: if nothing has
    come again by the time that one of thirty-one would have, eleven times in twelve.
    """
    had: list[Network] = []
    for _ in range(MANY):
        had.append(subnet(scene.network("choice", ipv6=family == 6).facts.gateways, family))
        scene.remove_network("choice")
        yield had[-1]
        again = [item for item, count in Counter(had).items() if count > 1]
        firsts = [int(item.network_address) for item in had]
        rounds = sum(after < before for before, after in pairwise(firsts))
        drawn = len(had) >= DRAWN and not again and rounds > 1
        if len(again) > 1 or had.count(had[-1]) > 2 or drawn:
            return


@contextmanager
def operator(host: NetnsView, network: Network, *, connected: bool = False) -> Iterator[None]:
    """An operator's route in the host: by its gateway, or to a link with such an address."""
    with host.open() as space, Netlink(space) as netlink:
        if connected:
            netlink.send([rtnetlink.add_bridge("operated", up=True)])
            index = host.links()["operated"].ifindex
            own = ip_interface(f"{network[1]}/{network.prefixlen}")
            add: list[Request] = [rtnetlink.add_address(index, own)]
            remove: list[Request] = [rtnetlink.del_link("operated")]
        else:
            via = next(
                route.via
                for route in host.routes()
                if route.destination is None and route.family == network.version
            )
            assert via is not None
            add = [rtnetlink.add_route(network, via=via, oif=host.links()["eth0"].ifindex)]
            remove = [rtnetlink.del_route(network, via=via)]
        try:
            netlink.send(add)
            yield
        finally:
            netlink.send(remove)
