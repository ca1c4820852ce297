"""Reachability and isolation of user-defined networks in both families."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from harness.model.plan import ATTACKER, INTERNET, NS1, Bridge, Family
from harness.model.topology import pick
from harness.plugin.marks import requirement
from harness.testbench.listener import Listener
from harness.testbench.scene import Scene
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from suites.support.features import has_ipv6
from suites.support.three_containers import both_families


@requirement("V6-1", "BR-4", "BR-6", "BR-7", "BR-8")
def test_ipv6_network_keeps_every_promise_in_both_families(scene: Scene) -> None:
    """On a network with IPv6, all promised reachability is observed in both families."""
    lan = scene.network("lan", ipv6=True, subnet6=IPv6Network("fd00:66::/64"))
    scene.containers(a=lan, b=lan)
    assert scene.observed() == scene.promised()


@requirement("NET-2")
def test_networks_are_isolated_from_each_other(scene: Scene) -> None:
    """Containers on different networks never reach each other, in any protocol or family."""
    dual = has_ipv6(scene.runtime)
    lan, dmz = (
        scene.network(name, ipv6=dual, subnet6=IPv6Network(subnet) if dual else None)
        for name, subnet in (("lan", "fd00:66::/64"), ("dmz", "fd00:67::/64"))
    )
    scene.containers(a=lan, b=lan, c=dmz, d=Bridge())
    assert scene.observed() == scene.promised()


@requirement("INT-1", "INT-2")
def test_container_on_internal_network_reaches_nothing_beyond_its_bridge(scene: Scene) -> None:
    """A container on an internal network reaches its peers and no target beyond the bridge."""
    closed = scene.network("closed", internal=True, subnet=IPv4Network("172.31.7.0/24"))
    scene.containers(a=closed, b=closed, c=Bridge())
    assert scene.observed() == scene.promised()


@requirement("INT-1")
@both_families
@pytest.mark.parametrize("target", [INTERNET, ATTACKER, NS1])
def test_static_route_does_not_lead_out_of_internal_network(
    scene: Scene, target: str, family: Family
) -> None:
    """A container on an internal network that adds a static route still reaches no outside target.

    The same packets from an open network arrive.
    """
    dual = has_ipv6(scene.runtime)
    scene.network("closed", internal=True, ipv6=dual)
    scene.network("open", ipv6=dual)
    scene.containers(inner=Bridge("closed"), outer=Bridge("open"))
    gateway = pick(scene.runtime.network_facts("closed").gateways, family)
    with scene["inner"].net.open() as space, Netlink(space) as netlink:
        eth0 = rtnetlink_dump.link(netlink, "eth0").ifindex
        netlink.send([rtnetlink.add_route(None, via=gateway.ip, oif=eth0)])
    address = scene.world.address(target, family)
    with Listener(scene.netns(target), "udp", family=family) as listener:
        assert listener.reached_from(scene["outer"].net, at=address)
        assert (
            listener.delivered([(scene["inner"].net, address, listener.port)], scene.settle) == []
        )


@requirement("ICC-1")
def test_peers_do_not_reach_each_other_without_icc(scene: Scene) -> None:
    """Without inter-container communication (ICC), containers reach all targets but their peers."""
    apart = scene.network("apart", icc=False)
    scene.containers(a=apart, b=apart)
    assert scene.observed() == scene.promised()
