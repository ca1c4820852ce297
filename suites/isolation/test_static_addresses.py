"""Addresses and MACs that a container asks for: its own on the wire, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.plan import Bridge, ContainerSpec, Family, NetworkSpec, Plan, Protocol
from harness.plugin.marks import requirement
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.features import another, has_ipv6, restarts
from suites.support.three_containers import ThreeContainers, both_families

SUBNET, SUBNET6 = IPv4Network("172.30.64.0/20"), IPv6Network("fd00:30:64::/64")
IP, IP6 = IPv4Address("172.30.70.7"), IPv6Address("fd00:30:64::70:7")
KEPT, KEPT6 = IPv4Network("172.30.144.0/20"), IPv6Network("fd00:30:144::/64")
MAC: Final = "0a:11:22:33:44:55"
NETWORK = "asked"
PORT: Final = 31060


@pytest.fixture(scope="module")
def asked(world: World, runtime: Adapter) -> Iterator[Scene]:
    """`a` has asked for addresses and a MAC, `b` for nothing: look, do not change."""
    dual = has_ipv6(runtime)
    network = NetworkSpec(NETWORK, subnet=SUBNET, subnet6=SUBNET6 if dual else None)
    plan = Plan(
        networks=(network,),
        containers=(
            ContainerSpec("a", Bridge(NETWORK), ip=IP, ip6=IP6 if dual else None, mac=MAC),
            ContainerSpec("b", Bridge(NETWORK)),
        ),
    )
    with Scene(world, runtime, plan) as made:
        yield made


@requirement("NET-5")
@both_families
def test_a_peer_sees_what_was_asked_for(asked: Scene, wires: TapPool, family: Family) -> None:
    """In what it sends, and in what a peer has learnt of its MAC."""
    wanted = IP if family == 4 else IP6
    with TapPool() as own:
        trio = ThreeContainers(asked, family, NETWORK, wires, own)
        assert trio.address("a") == wanted
        with trio.capture("b") as wire:
            with trio.call("a", "b", Protocol.UDP, port=PORT) as call:
                call.say(b"from me")
            with trio.call("b", "a", Protocol.ICMP, own_port=PORT) as echo:
                echo.say(b"are you there?")
                assert echo.hear() == b"are you there?"
        wire.expect_one(Ether(src=MAC) / trio.ip(wanted, "b") / UDP(dport=PORT) / b"from me")
        learnt = {item.address: item.mac for item in trio.place("b").neighbours()}
        assert learnt[wanted] == MAC
    assert asked.observed(row := asked.promised().select(family=family)) == row


@requirement("NET-5", "BR-10")
def test_what_was_asked_for_is_what_the_runtime_reports(asked: Scene) -> None:
    """And what the interface inside has, and nothing besides."""
    endpoint, inside = asked["a"].endpoint(NETWORK), asked["a"].net
    assert inside.links()["eth0"].mac == MAC == endpoint.mac
    reported = [item for item in (endpoint.address, endpoint.address6) if item]
    assert inside.interfaces("eth0") == reported
    assert reported[0].ip == IP


@requirement("NET-5", "NET-3")
def test_it_is_kept_beside_another_network(scene: Scene) -> None:
    """Connected to one more it has the same, and so it has when it is started again there."""
    ip, ip6 = IPv4Address("172.30.145.7"), IPv6Address("fd00:30:144::7")
    options: dict[str, Any] = {"ip": ip, "mac": MAC}
    if has_ipv6(scene.runtime):
        scene.network("kept", subnet=KEPT, subnet6=KEPT6)
        options["ip6"] = ip6
    else:
        scene.network("kept", subnet=KEPT)
    container = scene.container("again", Bridge("kept"), **options)
    scene.connect("again", another(scene))
    assert_has(container.net, options)
    if restarts(scene.runtime):
        container.stop()
        container.start()
        assert_has(container.net, options)


@requirement("NET-5", "V6-1", "LIFE-7")
def test_so_is_an_ipv6_address(scene: Scene) -> None:
    """Beside an IPv4 address that nobody asked for."""
    scene.network("kept", subnet6=IPv6Network("fd00:30:80::/64"))
    wanted = IPv6Address("fd00:30:80::81:7")
    container = scene.container("again", Bridge("kept"), ip6=wanted)
    container.stop()
    container.start()
    assert container.net.address(6) == wanted


@requirement("NET-5", "BR-10")
def test_what_was_asked_for_is_given_to_nobody_else(scene: Scene) -> None:
    """The addresses and MACs that others get go round it."""
    network = IPv4Network("172.30.96.0/28")
    scene.network("small", subnet=network)
    second, third, fourth = list(network.hosts())[1:4]
    scene.container("x", Bridge("small"), ip=second)
    scene.container("y", Bridge("small"), ip=fourth, mac=f"02:42:{third.packed.hex(':')}")
    for number in range(3):
        scene.container(f"other{number}", Bridge("small"))
    places = [scene[spec.name].net for spec in scene.plan.containers]
    for seen in (
        [item.address(4) for item in places],
        [item.links()["eth0"].mac for item in places],
    ):
        assert len(set(seen)) == len(places)
    assert (scene["x"].net.address(4), scene["y"].net.address(4)) == (second, fourth)


@requirement("NET-5")
@pytest.mark.parametrize(
    "options",
    [
        {"ip": "172.30.128.7"},
        {"ip": "172.30.64.0"},
        {"ip": "172.30.79.255"},
        {"ip": "172.30.64.1"},
        {"ip": str(IP)},
        {"ip": "172.30.70.256"},
        {"ip": "fd00:30:64::9"},
        {"ip": "somewhere"},
        {"ip": "127.0.0.1"},
        {"mac": "01:00:5e:00:00:01"},
        {"mac": "00:00:00:00:00:00"},
        {"mac": "ff:ff:ff:ff:ff:ff"},
        {"mac": "0a:11:22:33:44"},
        {"mac": "0a:11:22:33:44:5g"},
        pytest.param({"ip6": "fd00:30:65::9"}, marks=requirement("V6-1")),
        pytest.param({"ip6": "fd00:30:64::"}, marks=requirement("V6-1")),
        pytest.param({"ip6": "fd00:30:64::1"}, marks=requirement("V6-1")),
        pytest.param({"ip6": str(IP6)}, marks=requirement("V6-1")),
        pytest.param({"ip6": "fd00:30:64::7::7"}, marks=requirement("V6-1")),
        pytest.param({"ip6": str(IP)}, marks=requirement("V6-1")),
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_what_cannot_be_is_refused(
    asked: Scene, runtime: Adapter, host: NetnsView, options: dict[str, Any]
) -> None:
    """Outside the subnet, somebody else's, nobody's to have, or malformed: nothing is left."""
    assert_refused(asked, runtime, host, options)


def assert_refused(
    asked: Scene, runtime: Adapter, host: NetnsView, options: dict[str, Any]
) -> None:
    """A container that asks for this does not start, and nothing is left of it."""
    before = host.snapshot()
    asked.refusal("refused", Bridge(NETWORK), **options)
    # A namespace that was made for it, and its links, may take the kernel a moment to remove.
    until(host, lambda: not before.changes(host.snapshot()), "nothing is left of what was refused")
    with pytest.raises(RuntimeRefused):
        runtime.inspect("refused")


@requirement("NET-5")
@pytest.mark.parametrize("mac", [MAC, MAC.upper()])
def test_a_mac_that_a_peer_has_is_refused_or_given_as_declared(
    asked: Scene, runtime: Adapter, host: NetnsView, mac: str
) -> None:
    """However it is written."""
    assert_as_declared(asked, runtime, host, mac)


@requirement("NET-5")
def test_so_is_one_that_a_peer_has_been_given(
    asked: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """Whether that was drawn, or derives from an address: nobody has asked for it."""
    assert_as_declared(asked, runtime, host, asked["b"].net.links()["eth0"].mac)


def assert_as_declared(asked: Scene, runtime: Adapter, host: NetnsView, mac: str) -> None:
    """A container that asks for a MAC that somebody has does not start, or has it too."""
    if runtime.dialect.taken_mac == "refused":
        assert_refused(asked, runtime, host, {"mac": mac})
    else:
        late = asked.container("late", Bridge(NETWORK), mac=mac)
        try:
            assert late.net.links()["eth0"].mac == mac.lower()
        finally:
            late.remove()


@requirement("NET-5")
@pytest.mark.parametrize("options", [{"ip": "172.30.112.9"}, {"mac": MAC}], ids=["address", "MAC"])
def test_what_is_free_again_is_given(scene: Scene, options: dict[str, Any]) -> None:
    """Once its holder is gone another may ask for it."""
    scene.network("handed-on", subnet=IPv4Network("172.30.112.0/24"))
    for name in ("first", "second"):
        scene.container(name, Bridge("handed-on"), **options)
        inside = scene[name].net
        assert {"ip": str(inside.address(4)), "mac": inside.links()["eth0"].mac}.items() >= (
            options.items()
        )
        scene.remove(name)


def assert_has(inside: NetnsView, options: dict[str, Any]) -> None:
    """The interface with the MAC that was asked for has the addresses that were."""
    (link,) = (link.name for link in inside.links().values() if link.mac == options["mac"])
    asked_for = {address for name, address in options.items() if name != "mac"}
    assert {item.ip for item in inside.interfaces(link)} == asked_for
