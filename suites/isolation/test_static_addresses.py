"""Addresses and MACs that the user requests, which are assigned or refused."""

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
from harness.testbench.packets.capture import TapPool
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
def requested(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share `a`, which has requested addresses and a requested MAC, and `b`, which has none.

    Tests must not change them.
    """
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
def test_peer_sees_requested_addresses_and_mac(
    requested: Scene, wires: TapPool, family: Family
) -> None:
    """A peer sees the requested addresses and MAC in packets and in its neighbour entry."""
    wanted = IP if family == 4 else IP6
    with TapPool() as own:
        trio = ThreeContainers(requested, family, NETWORK, wires, own)
        assert trio.address("a") == wanted
        with trio.capture("b") as wire:
            with trio.client("a", "b", Protocol.UDP, port=PORT) as call:
                call.send(b"from me")
            with trio.client("b", "a", Protocol.ICMP, own_port=PORT) as echo:
                echo.send(b"are you there?")
                assert echo.receive() == b"are you there?"
        wire.expect_one(Ether(src=MAC) / trio.ip(wanted, "b") / UDP(dport=PORT) / b"from me")
        learnt = {item.address: item.mac for item in trio.netns("b").neighbours()}
        assert learnt[wanted] == MAC
    assert requested.observed(row := requested.promised().select(family=family)) == row


@requirement("NET-5", "BR-10")
def test_requested_addresses_are_reported_and_assigned(requested: Scene) -> None:
    """A container's interface has exactly the requested addresses, and the runtime reports them."""
    endpoint, inside = requested["a"].endpoint(NETWORK), requested["a"].net
    assert inside.links()["eth0"].mac == MAC == endpoint.mac
    reported = [item for item in (endpoint.address, endpoint.address6) if item]
    assert inside.interfaces("eth0") == reported
    assert reported[0].ip == IP


@requirement("NET-5", "NET-3")
def test_requested_addresses_survive_connect_and_restart(scene: Scene) -> None:
    """Requested addresses and MAC survive connect to another network, and restart."""
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
def test_requested_ipv6_address_survives_restart(scene: Scene) -> None:
    """A restarted container keeps its requested IPv6 address and gets an automatic IPv4 address."""
    scene.network("kept", subnet6=IPv6Network("fd00:30:80::/64"))
    wanted = IPv6Address("fd00:30:80::81:7")
    container = scene.container("again", Bridge("kept"), ip6=wanted)
    container.stop()
    container.start()
    assert container.net.address(6) == wanted


@requirement("NET-5", "BR-10")
def test_requested_addresses_are_not_assigned_to_other_containers(scene: Scene) -> None:
    """The runtime assigns no requested address or MAC to another container automatically."""
    network = IPv4Network("172.30.96.0/28")
    scene.network("small", subnet=network)
    second, third, fourth = list(network.hosts())[1:4]
    scene.container("x", Bridge("small"), ip=second)
    scene.container("y", Bridge("small"), ip=fourth, mac=f"02:42:{third.packed.hex(':')}")
    for number in range(3):
        scene.container(f"other{number}", Bridge("small"))
    views = [scene[spec.name].net for spec in scene.plan.containers]
    for seen in (
        [item.address(4) for item in views],
        [item.links()["eth0"].mac for item in views],
    ):
        assert len(set(seen)) == len(views)
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
    ids=lambda options: ",".join(f"{name}={value}" for name, value in options.items()),
)
def test_invalid_address_or_mac_is_refused(
    requested: Scene, runtime: Adapter, host: NetnsView, options: dict[str, Any]
) -> None:
    """A malformed, used or unassignable address or MAC is refused, and the host keeps nothing."""
    assert_refused(requested, runtime, host, options)


def assert_refused(
    requested: Scene, runtime: Adapter, host: NetnsView, options: dict[str, Any]
) -> None:
    """Assert that a container with these options does not start and leaves nothing."""
    before = host.snapshot()
    requested.refusal("refused", Bridge(NETWORK), **options)
    # The kernel removes the attempt's netns and links asynchronously.
    until(
        host,
        lambda: not before.changes(host.snapshot()),
        "the refused start leaves no state on the host",
    )
    with pytest.raises(RuntimeRefused):
        runtime.inspect("refused")


@requirement("NET-5")
@pytest.mark.parametrize("mac", [MAC, MAC.upper()], ids=["lowercase", "uppercase"])
def test_request_for_mac_that_a_peer_requested_is_handled_as_declared(
    requested: Scene, runtime: Adapter, host: NetnsView, mac: str
) -> None:
    """A request for a MAC that a peer has requested is refused or granted, as the runtime declares.

    The MAC is requested in upper and lower case.
    """
    assert_as_declared(requested, runtime, host, mac)


@requirement("NET-5")
def test_request_for_automatic_mac_of_a_peer_is_handled_as_declared(
    requested: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """A request for a peer's automatic MAC is refused or granted, as the runtime declares."""
    assert_as_declared(requested, runtime, host, requested["b"].net.links()["eth0"].mac)


def assert_as_declared(requested: Scene, runtime: Adapter, host: NetnsView, mac: str) -> None:
    """Assert that a request for a MAC in use is refused or granted, as the runtime declares."""
    if runtime.dialect.taken_mac == "refused":
        assert_refused(requested, runtime, host, {"mac": mac})
    else:
        late = requested.container("late", Bridge(NETWORK), mac=mac)
        try:
            assert late.net.links()["eth0"].mac == mac.lower()
        finally:
            late.remove()


@requirement("NET-5")
@pytest.mark.parametrize("options", [{"ip": "172.30.112.9"}, {"mac": MAC}], ids=["address", "MAC"])
def test_freed_address_and_mac_are_available_again(scene: Scene, options: dict[str, Any]) -> None:
    """An address and a MAC are available again after the container that had them is removed."""
    scene.network("handed-on", subnet=IPv4Network("172.30.112.0/24"))
    for name in ("first", "second"):
        scene.container(name, Bridge("handed-on"), **options)
        inside = scene[name].net
        assert {"ip": str(inside.address(4)), "mac": inside.links()["eth0"].mac}.items() >= (
            options.items()
        )
        scene.remove(name)


def assert_has(inside: NetnsView, options: dict[str, Any]) -> None:
    """Assert that the interface with the requested MAC has the requested addresses."""
    (link,) = (link.name for link in inside.links().values() if link.mac == options["mac"])
    asked_for = {address for name, address in options.items() if name != "mac"}
    assert {item.ip for item in inside.interfaces(link)} == asked_for
