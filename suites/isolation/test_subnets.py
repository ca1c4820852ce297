"""Subnets of networks, which must not overlap a route of the host or another network."""

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
from suites.isolation.conftest import assert_network_refused
from suites.support.three_containers import both_families

SEVERAL: Final = 4
MANY: Final = 64
"""A number of networks that is larger than any runtime's list of subnets."""
DRAWN: Final = 12
TAKEN: Final[dict[int, Network]] = {
    4: IPv4Network("172.30.16.0/20"),
    6: IPv6Network("fd00:30:16::/48"),
}
"""Subnet of another network or of the operator's route, by address family."""


# --- a subnet of the runtime's choice ----------------------------------------------


@requirement("NET-1")
@both_families
def test_automatic_subnet_overlaps_no_network_and_no_route(
    scene: Scene, host: NetnsView, family: Family
) -> None:
    """An automatic subnet overlaps no other network and no route of the host."""
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
def test_automatic_subnet_avoids_operator_routes(
    scene: Scene, host: NetnsView, family: Family, kind: str
) -> None:
    """An automatic subnet overlaps no static or connected route that the operator has added.

    The route covers the subnet that the runtime would choose next, or a wider or narrower one.
    """
    operated = related(next(choices(scene, family)), kind)
    with operator(host, operated, connected=kind == "connected"):
        assert operated in routed(host, family)
        assert not [item for item in choices(scene, family) if item.overlaps(operated)]


# --- a requested subnet --------------------------------------------------------------


@requirement("NET-1", "NET-5")
@both_families
def test_bridge_and_routes_have_the_requested_subnet(scene: Scene, family: Family) -> None:
    """The bridge has the gateway's address in the requested subnet, and the host a route to it."""
    made = scene.network("asked", **asked(TAKEN[family]))
    scene.container(
        "first", Bridge("asked")
    )  # some runtimes create the bridge with the first container
    assert subnet(made.facts.gateways, family) == TAKEN[family]
    assert made.facts.interface is not None
    bridges = scene.netns(GATEWAY)
    assert pick(made.facts.gateways, family) in bridges.interfaces(made.facts.interface)
    assert TAKEN[family] in routed(bridges, family)


@requirement("NET-7")
@both_families
@pytest.mark.parametrize("other", ["network", "default-network", "route", "uplink", "br0"])
def test_overlapping_subnet_is_refused(
    scene: Scene, host: NetnsView, family: Family, other: str
) -> None:
    """A requested subnet that overlaps a network, a route or a subnet of the host is refused.

    The requested subnet is equal to that one, wider or narrower.
    """
    with in_use(scene, host, other, family) as used:
        for kind in ("same", "wider", "narrower"):
            assert_network_refused(scene.runtime, host, **asked(related(used, kind)))


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
    ids=lambda options: ",".join(f"{name}={value}" for name, value in options.items()),
)
def test_malformed_subnet_gateway_or_range_is_refused(
    runtime: Adapter, host: NetnsView, options: dict[str, str]
) -> None:
    """A malformed subnet is refused, and so is a gateway or a range outside the subnet."""
    assert_network_refused(runtime, host, **options)


@requirement("NET-7")
@both_families
def test_subnet_with_host_bits_is_handled_as_declared(
    scene: Scene, host: NetnsView, family: Family
) -> None:
    """A subnet with host bits is refused or reduced to its network address, as declared."""
    wanted = TAKEN[family]
    option = {"subnet" if family == 4 else "subnet6": f"{wanted[5]}/{wanted.prefixlen}"}
    if scene.runtime.dialect.host_bits == "refused":
        assert_network_refused(scene.runtime, host, **option)
    else:
        made = scene.network("loose", **option)
        assert subnet(made.facts.gateways, family) == wanted


# --- helpers ---------------------------------------------------------------------------


def asked(wanted: Network) -> dict[str, Network]:
    """Return the options that request this subnet for a network."""
    return {"subnet" if wanted.version == 4 else "subnet6": wanted}


def related(network: Network, how: str) -> Network:
    """Return the network, its supernet of twice the size, or its last quarter, as `how` says."""
    found: Network = network
    if how == "wider":
        found = network.supernet()
    elif how == "narrower":
        *_, found = network.subnets(2)
    return found


def subnet(gateways: tuple[Interface, ...], family: Family) -> Network:
    """Return the subnet of a network's gateway."""
    return pick(gateways, family).network


def routed(host: NetnsView, family: Family) -> list[Network]:
    """Return the destinations of the host's routes, except for the default route."""
    return [
        route.destination
        for route in host.routes()
        if route.destination is not None and route.destination.version == family
    ]


@contextmanager
def in_use(scene: Scene, host: NetnsView, by: str, family: Family) -> Iterator[Network]:
    """Keep a subnet in use while the body runs, and yield it."""
    match by:
        case "network":
            scene.network("first", **asked(TAKEN[family]))
            yield TAKEN[family]
        case "default-network":
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
    """Yield the subnets that the runtime chooses one after another, until they repeat.

    Some runtimes choose the first free subnet. Some choose from a list in turn: Docker has 31
    subnets, of which it chooses the first one twice in a row. Some draw at random from too many
    subnets to wait for a repetition, so the search stops after `DRAWN` different subnets. Twelve
    random draws from 31 subnets would repeat one with a probability of eleven in twelve.
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
    """Keep an operator's route on the host while the body runs.

    The route leads to the gateway, or belongs to a connected subnet.
    """
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
