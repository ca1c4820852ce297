"""Addresses and MACs of many containers in mode bridge."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import DEFAULT_NETWORK, HOST, NS1, NS2, Bridge
from harness.plugin.marks import requirement
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux.rtnetlink import mac_bytes

SMALL = IPv4Network("172.29.5.8/29")
GATEWAY_IN_THE_MIDDLE = IPv4Address("172.29.5.11")


@requirement("BR-10")
def test_addresses_of_twenty_containers_are_unique(twenty_containers: Scene) -> None:
    """Twenty containers, the host and the bystanders all have different addresses."""
    held = [
        [item.ip for item in twenty_containers.netns(name).interfaces() if not item.ip.is_loopback]
        for name in (*members(twenty_containers), HOST, NS1, NS2)
    ]
    assert all(held), "a container, the host or a bystander has no address"
    together = [address for addresses in held for address in addresses]
    assert len(set(together)) == len(together)


@requirement("BR-10")
def test_addresses_of_twenty_containers_are_host_addresses_of_the_subnet(
    twenty_containers: Scene, runtime: Adapter
) -> None:
    """Twenty containers' addresses are in the subnet, and none is reserved.

    The reserved addresses are those of the network, the broadcast and the gateway.
    """
    gateways = runtime.network_facts(DEFAULT_NETWORK).gateways
    (gateway,) = (item for item in gateways if isinstance(item, IPv4Interface))
    network = gateway.network
    given = {twenty_containers[name].net.address(4) for name in members(twenty_containers)}
    assert all(address in network for address in given)
    assert not given & {network.network_address, network.broadcast_address, gateway.ip}


@requirement("BR-10")
def test_reported_endpoint_matches_interface_of_bridged_container(twenty_containers: Scene) -> None:
    """For each container the runtime reports the address and MAC of the container's eth0."""
    for name in members(twenty_containers):
        endpoint, inside = twenty_containers[name].endpoint(), twenty_containers[name].net
        assert endpoint.address in inside.interfaces("eth0")
        assert endpoint.mac == inside.links()["eth0"].mac


@requirement("BR-10", "BR-16")
def test_small_network_assigns_every_usable_address(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """A small network assigns all its usable addresses, and then refuses the next container.

    The gateway has an address in the middle of the subnet.
    """
    small = scene.network("small", subnet=SMALL, gateway=GATEWAY_IN_THE_MIDDLE)
    usable = set(SMALL.hosts()) - {GATEWAY_IN_THE_MIDDLE}
    for number in range(len(usable)):
        scene.container(f"c{number}", Bridge(small.name))
    assert {scene[name].net.address(4) for name in members(scene)} == usable
    before = host.snapshot()
    scene.refusal("one-too-many", Bridge(small.name))
    assert before.changes(host.snapshot()) == []
    with pytest.raises(RuntimeRefused):
        runtime.inspect("one-too-many")


@requirement("BR-10")
@pytest.mark.parametrize("part", ["172.29.6.0/30", "172.29.6.252/30"], ids=["first", "last"])
def test_range_at_subnet_boundary_excludes_reserved_address(scene: Scene, part: str) -> None:
    """A network with an IP range at the start or end of its subnet assigns no reserved address.

    The reserved addresses are those of the network and the broadcast.
    """
    subnet, part4 = IPv4Network("172.29.6.0/24"), IPv4Network(part)
    scene.network("ranged", subnet=subnet, gateway=subnet[100], ip_range=part4)
    usable = set(subnet.hosts()) & set(part4)
    with contextlib.suppress(RuntimeRefused):  # no address is left
        for number in range(len(usable) + 1):
            scene.container(f"c{number}", Bridge("ranged"))
    given = {scene[name].net.address(4) for name in members(scene)}
    assert given
    assert given <= usable


@requirement("BR-10")
def test_freed_address_is_reused_as_declared(scene: Scene, runtime: Adapter) -> None:
    """A freed address goes to the next container or to a later one, as the runtime declares."""
    freed = scene.container("first").net.address(4)
    scene["first"].remove()
    newcomer = scene.container("second").net.address(4)
    assert (newcomer == freed) == (runtime.dialect.address_reuse == "lowest")


@requirement("BR-11")
def test_macs_of_twenty_containers_are_unique_on_the_network(
    twenty_containers: Scene, host: NetnsView
) -> None:
    """Twenty containers and the host's links all have different MACs."""
    macs = [twenty_containers[name].net.links()["eth0"].mac for name in members(twenty_containers)]
    assert len(set(macs)) == len(macs)
    assert not set(macs) & {link.mac for link in host.links().values()}


@requirement("BR-11")
def test_macs_of_containers_are_unicast_and_locally_administered(twenty_containers: Scene) -> None:
    """Containers' MACs are unicast and locally administered."""
    firsts = {
        mac_bytes(twenty_containers[name].net.links()["eth0"].mac)[0]
        for name in members(twenty_containers)
    }
    assert {first & 0b11 for first in firsts} == {0b10}


@requirement("BR-11")
def test_macs_of_containers_are_derived_as_declared(
    twenty_containers: Scene, runtime: Adapter
) -> None:
    """A container's MAC is 02:42 plus its IPv4 address exactly if the runtime declares so."""
    derived = runtime.dialect.mac == "from-address"
    for name in members(twenty_containers):
        inside = twenty_containers[name].net
        address = inside.address(4)
        assert address is not None
        assert (mac_bytes(inside.links()["eth0"].mac) == b"\x02\x42" + address.packed) == derived


@requirement("BR-11")
def test_mac_of_recreated_container_is_as_declared(scene: Scene, runtime: Adapter) -> None:
    """A container that is removed and created again has the same MAC or another one, as declared.

    The MAC is the same if it derives from the name, and another if it is random. Otherwise it
    depends on the address.
    """
    again = []
    for _ in range(2):
        inside = scene.container("again").net
        again.append((inside.links()["eth0"].mac, inside.address(4)))
        scene["again"].remove()
    (first, its_address), (second, address) = again
    same = {"stable": True, "random": False, "from-address": its_address == address}
    assert (first == second) == same[runtime.dialect.mac]


def members(scene: Scene) -> list[str]:
    """Return the names of a scene's containers."""
    return [spec.name for spec in scene.plan.containers]
