"""Mode bridge, many containers: every address and every MAC is somebody's own."""

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
def test_addresses_are_unique(crowd: Scene) -> None:
    """Of twenty containers, the host and the bystanders no two have an address in common."""
    held = [
        [item.ip for item in crowd.place(name).interfaces() if not item.ip.is_loopback]
        for name in (*members(crowd), HOST, NS1, NS2)
    ]
    assert all(held), "everybody has an address"
    together = [address for addresses in held for address in addresses]
    assert len(set(together)) == len(together)


@requirement("BR-10")
def test_addresses_are_those_of_hosts(crowd: Scene, runtime: Adapter) -> None:
    """Inside the subnet, never the network's, the broadcast's or the gateway's."""
    gateways = runtime.network_facts(DEFAULT_NETWORK).gateways
    (gateway,) = (item for item in gateways if isinstance(item, IPv4Interface))
    network = gateway.network
    given = {crowd[name].net.address(4) for name in members(crowd)}
    assert all(address in network for address in given)
    assert not given & {network.network_address, network.broadcast_address, gateway.ip}


@requirement("BR-10")
def test_what_the_runtime_reports_is_what_the_kernel_has(crowd: Scene) -> None:
    """Address and MAC of every container's endpoint are those of its eth0."""
    for name in members(crowd):
        endpoint, inside = crowd[name].endpoint(), crowd[name].net
        assert endpoint.address in inside.interfaces("eth0")
        assert endpoint.mac == inside.links()["eth0"].mac


@requirement("BR-10", "BR-16")
def test_a_small_network_gives_out_every_address_but_its_own(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """All that are usable, round the gateway in the middle; then the next start is refused."""
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
@pytest.mark.parametrize("part", ["172.29.6.0/30", "172.29.6.252/30"])
def test_a_range_at_an_end_of_the_subnet_leaves_that_end_out(scene: Scene, part: str) -> None:
    """All that is given out of it is a host's: not the network's address, nor the broadcast's."""
    subnet, part4 = IPv4Network("172.29.6.0/24"), IPv4Network(part)
    scene.network("ranged", subnet=subnet, gateway=subnet[100], ip_range=part4)
    usable = set(subnet.hosts()) & set(part4)
    with contextlib.suppress(RuntimeRefused):  # once there is none left
        for number in range(len(usable) + 1):
            scene.container(f"c{number}", Bridge("ranged"))
    given = {scene[name].net.address(4) for name in members(scene)}
    assert given
    assert given <= usable


@requirement("BR-10")
def test_a_freed_address_is_given_out_again_as_declared(scene: Scene, runtime: Adapter) -> None:
    """At once where the lowest is taken, later where the counter goes on."""
    freed = scene.container("first").net.address(4)
    scene["first"].remove()
    newcomer = scene.container("second").net.address(4)
    assert (newcomer == freed) == (runtime.dialect.address_reuse == "lowest")


@requirement("BR-11")
def test_macs_are_unique_on_the_network(crowd: Scene, host: NetnsView) -> None:
    """No two containers have one in common, nor one with a port of the host's."""
    macs = [crowd[name].net.links()["eth0"].mac for name in members(crowd)]
    assert len(set(macs)) == len(macs)
    assert not set(macs) & {link.mac for link in host.links().values()}


@requirement("BR-11")
def test_macs_are_unicast_and_locally_administered(crowd: Scene) -> None:
    """The two lowest bits of the first octet: not a group's, and nobody's product."""
    firsts = {mac_bytes(crowd[name].net.links()["eth0"].mac)[0] for name in members(crowd)}
    assert {first & 0b11 for first in firsts} == {0b10}


@requirement("BR-11")
def test_macs_come_about_as_declared(crowd: Scene, runtime: Adapter) -> None:
    """02:42 and the address where they derive from it; else they have nothing to do with it."""
    derived = runtime.dialect.mac == "from-address"
    for name in members(crowd):
        inside = crowd[name].net
        address = inside.address(4)
        assert address is not None
        assert (mac_bytes(inside.links()["eth0"].mac) == b"\x02\x42" + address.packed) == derived


@requirement("BR-11")
def test_a_second_container_of_a_name_has_the_mac_that_is_declared(
    scene: Scene, runtime: Adapter
) -> None:
    """The same where it goes by the name, another where it is drawn, and by its address else."""
    again = []
    for _ in range(2):
        inside = scene.container("again").net
        again.append((inside.links()["eth0"].mac, inside.address(4)))
        scene["again"].remove()
    (first, its_address), (second, address) = again
    same = {"stable": True, "random": False, "from-address": its_address == address}
    assert (first == second) == same[runtime.dialect.mac]


def members(scene: Scene) -> list[str]:
    """The names of a scene's containers."""
    return [spec.name for spec in scene.plan.containers]
