"""Mode bridge on a network of one's own: a container is given what it is given on the default one.

Where the runtime has that one alone, it is that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import DEFAULT_NETWORK, GATEWAY, Bridge, ContainerSpec, NetworkSpec, Plan
from harness.plugin.marks import requirement
from harness.testbench import container
from harness.testbench.scene import Scene
from harness.world.build import World
from linux.rtnetlink import mac_bytes
from linux.rtnetlink_dump import Route
from suites.modes.test_bridge import leads_to_no_other_routes
from suites.support.features import restarts

NAMES: Final = ("a", "b", "c")
OWN: Final = "own"

each: Final = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=requirement("V6-1"))])
def inmates(world: World, runtime: Adapter, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Three containers on such a network, with IPv4 alone or with both: look, do not change.

    `b` has been started again, where the runtime can do that.
    """
    new = Feature.NETWORKS in runtime.features
    networks = (NetworkSpec(OWN, ipv6=request.param),) if new else ()
    mode = Bridge(OWN if new else DEFAULT_NETWORK)
    plan = Plan(networks=networks, containers=tuple(ContainerSpec(name, mode) for name in NAMES))
    with Scene(world, runtime, plan) as made:
        if restarts(runtime):
            made["b"].stop()
            made.start("b")
        yield made


@requirement("BR-1")
@each
def test_it_has_lo_and_eth0_only(inmates: Scene, name: str) -> None:
    """Both are up, and a process inside is shown the same."""
    links = inmates[name].net.links()
    assert links.keys() == {"lo", "eth0"}
    assert all(link.up for link in links.values())
    assert container.view(inmates[name]).interfaces == {"lo", "eth0"}


@requirement("BR-1")
@each
def test_its_loopback_is_as_declared(inmates: Scene, name: str) -> None:
    """127.0.0.1/8, and ::1 on a network with IPv6, or where every container has it."""
    runtime = inmates.runtime
    six = any(item.version == 6 for item in runtime.network_facts(network(inmates)).gateways)
    held = {str(item) for item in inmates[name].net.interfaces("lo")}
    wanted = {"127.0.0.1/8"} | ({"::1/128"} if six or runtime.dialect.bridge_loopback6 else set())
    assert held == wanted


@requirement("BR-1")
@each
def test_it_has_one_address_of_each_family_inside_the_subnet(inmates: Scene, name: str) -> None:
    """With the subnet's prefix, the one that the runtime reports."""
    facts = inmates.runtime.network_facts(network(inmates))
    held = inmates[name].net.interfaces("eth0")
    assert [item.network for item in held] == [gateway.network for gateway in facts.gateways]
    endpoint = inmates[name].endpoint(facts.name)
    assert held == [item for item in (endpoint.address, endpoint.address6) if item]


@requirement("BR-2")
@each
def test_it_has_a_default_and_an_on_link_route(inmates: Scene, name: str) -> None:
    """For each family one by way of the bridge's address, one for the subnet, and no third."""
    inside = inmates[name].net
    eth0 = inside.links()["eth0"].ifindex
    expected = []
    for gateway in inmates.runtime.network_facts(network(inmates)).gateways:
        expected += [
            Route(None, gateway.ip, eth0, gateway.version),
            Route(gateway.network, None, eth0, gateway.version),
        ]
    assert sorted(inside.routes(), key=str) == sorted(expected, key=str)


@requirement("BR-2")
@each
def test_no_policy_rule_leads_to_other_routes(inmates: Scene, name: str) -> None:
    """It has the rules that a namespace has by itself, and no route in any table beside."""
    leads_to_no_other_routes(inmates, name)


@requirement("BR-3")
@each
def test_the_host_end_of_its_veth_is_a_port_of_the_bridge(inmates: Scene, name: str) -> None:
    """Up, and with the network's own bridge as its master."""
    eth0, links = inmates[name].net.links()["eth0"], inmates.place(GATEWAY).links()
    bridge = inmates.runtime.network_facts(network(inmates)).interface
    assert bridge is not None
    (end,) = (link for link in links.values() if link.ifindex == eth0.peer)
    assert (end.up, end.master) == (True, links[bridge].ifindex)


@requirement("BR-10")
def test_addresses_are_unique_and_those_of_hosts(inmates: Scene) -> None:
    """Never the network's, the broadcast's or the gateway's."""
    gateways = inmates.runtime.network_facts(network(inmates)).gateways
    held = [item.ip for name in NAMES for item in inmates[name].net.interfaces("eth0")]
    taken = {gateway.ip for gateway in gateways}
    taken |= {gateway.network.network_address for gateway in gateways}
    taken |= {gateway.network.broadcast_address for gateway in gateways if gateway.version == 4}
    assert len(held) == len(set(held)) == len(NAMES) * len(gateways)
    assert not taken & set(held)


@requirement("BR-11")
def test_macs_are_unique_and_come_about_as_declared(inmates: Scene) -> None:
    """Unicast, locally administered, and derived from the address or not."""
    derived = inmates.runtime.dialect.mac == "from-address"
    macs = {name: mac_bytes(inmates[name].net.links()["eth0"].mac) for name in NAMES}
    assert len(set(macs.values())) == len(NAMES)
    assert {mac[0] & 0b11 for mac in macs.values()} == {0b10}
    for name, mac in macs.items():
        address = inmates[name].net.address(4)
        assert address is not None
        assert (mac == b"\x02\x42" + address.packed) == derived


def network(scene: Scene) -> str:
    """The network that the containers of a scene are on."""
    return scene.plan.containers[0].networks[0]
