"""Router advertisements that a container sends: the host and its peers must ignore them."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Final

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_RA,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptRouteInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness.model.plan import DEFAULT_NETWORK, GATEWAY, Bridge
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.netns_view import NetnsView, until
from harness.testbench.packets.craft import ALL_NODES, EVERYBODY_MAC, mac_of, send_frame
from harness.testbench.scene import Scene
from suites.support.features import restarts

PREFIX: Final = IPv6Network("2001:db8:bad::/64")
BEYOND: Final = IPv6Network("2001:db8:bad:beef::/64")
ROUTER: Final = "fe80::bad"
PROOF: Final = Ether(src="02:00:5e:10:00:77", dst=EVERYBODY_MAC, type=0x88B5) / b"heard"
"""Control: a frame to the broadcast address, which a peer must receive."""
ACCEPT_RA: Final = {
    "net.ipv6.conf.eth0.accept_dad": 0,
    "net.ipv6.conf.eth0.autoconf": 1,
    "net.ipv6.conf.eth0.accept_ra": 2,
    "net.ipv6.conf.eth0.disable_ipv6": 0,
}
"""Sysctls that make the control container accept the crafted advertisement."""


@requirement("V6-2")
@pytest.mark.parametrize(
    "ipv6",
    [
        pytest.param(True, marks=requirement("V6-1")),
        pytest.param(False, marks=requirement("V6-3")),
    ],
    ids=["with-IPv6", "without-IPv6"],
)
def test_rogue_router_advertisement_changes_neither_host_nor_peer(
    scene: Scene, host: NetnsView, *, ipv6: bool
) -> None:
    """A container's router advertisement changes no address, route, MTU or hop limit elsewhere.

    A container that is set to accept advertisements is the control: it does change.
    """
    network = Bridge(scene.network("routed", ipv6=True).name if ipv6 else DEFAULT_NETWORK)
    rogue, peer, control = (scene.container(name, network) for name in ("rogue", "peer", "control"))
    control.net.tune(ACCEPT_RA)
    before = {view.name: (view, view.snapshot()) for view in (host, peer.net)}
    said = IPv6(src=ROUTER) / ICMPv6ND_RA()
    with peer.net.capture() as wire, host.capture() as outside:
        send_frame(rogue.net, advertisement(rogue.net.links()["eth0"].mac))
        scene.settle()
    assert outside.matching(said), "the advertisement does not leave the container"
    if wire.matching(said):
        until(
            control.net,
            lambda: has_accepted(control.net),
            "the control container accepts the advertisement",
        )
    changes = {name: then.changes(view.snapshot()) for name, (view, then) in before.items()}
    assert changes == {"host": [], "peer": []}


@requirement("V6-2", "V6-3", "NET-3")
def test_rogue_router_advertisement_is_ignored_by_connected_container(scene: Scene) -> None:
    """A container connected to a network without IPv6 ignores a peer's router advertisements.

    It still ignores them after its restart.
    """
    for name in ("home", "later"):
        scene.network(name)
    rogue, peer = scene.container("rogue", Bridge("later")), scene.container("peer", Bridge("home"))
    scene.connect("peer", "later")
    assert_ignored(scene, rogue, peer)


@requirement("V6-1", "V6-2", "NET-3")
def test_rogue_router_advertisement_is_ignored_on_connected_ipv6_network(scene: Scene) -> None:
    """A container connected to a network with IPv6 ignores a peer's router advertisements.

    The host ignores them too, also after the container's restart.
    """
    scene.network("later", ipv6=True)
    rogue, peer = scene.container("rogue", Bridge("later")), scene.container("peer")
    scene.connect("peer", "later")
    assert_ignored(scene, rogue, peer)


def assert_ignored(scene: Scene, rogue: Container, peer: Container) -> None:
    """Assert that an advertisement changes neither the peer nor the host.

    The check is repeated after a restart of the peer, where the runtime can restart.
    """
    host = scene.netns(GATEWAY)
    scene.ready()
    for again in (False, True) if restarts(scene.runtime) else (False,):
        if again:
            peer.stop()
            peer.start()
            scene.ready()
        before = peer.net.snapshot(), host.snapshot()
        with peer.net.capture() as wire:
            send_frame(rogue.net, advertisement(rogue.net.links()["eth0"].mac), PROOF)
            scene.settle()
        assert wire.matching(PROOF)
        assert before[0].changes(peer.net.snapshot()) == []
        assert before[1].changes(host.snapshot()) == []


def advertisement(mac: str) -> Packet:
    """Craft an advertisement with a router, a prefix, a route, an MTU and a resolver."""
    head = Ether(src=mac, dst=mac_of(ALL_NODES)) / IPv6(src=ROUTER, dst=str(ALL_NODES), hlim=255)
    said = ICMPv6ND_RA(routerlifetime=1800, prf=1, chlim=7, reachabletime=4000, retranstimer=4000)
    prefix = ICMPv6NDOptPrefixInfo(prefix=str(PREFIX.network_address), prefixlen=64, L=1, A=1)
    route = ICMPv6NDOptRouteInfo(prefix=str(BEYOND.network_address), plen=64, rtlifetime=1800)
    resolver = ICMPv6NDOptRDNSS(dns=[str(PREFIX[53])], lifetime=1800)
    offers = ICMPv6NDOptMTU(mtu=1280) / ICMPv6NDOptSrcLLAddr(lladdr=mac) / route / resolver
    return head / said / prefix / offers


def has_accepted(view: NetnsView) -> bool:
    """Return True if a namespace has an address and the default route from the advertisement."""
    addressed = any(item.ip in PREFIX for item in view.interfaces("eth0"))
    return addressed and any(str(route.via) == ROUTER for route in view.routes())
