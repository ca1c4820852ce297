"""Removal of networks, which is refused while a network is in use, and leaves nothing otherwise."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.features import Feature
from harness.model.plan import ATTACKER, DEFAULT_NETWORK, GATEWAY, HOST, Bridge
from harness.plugin.marks import requirement
from harness.testbench.listener import Listener
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import LOOPBACKS, Scene
from harness.world.leak_guard import LeakGuard
from suites.ports.published import INSIDE, both
from suites.support.features import has_ipv6

SUBNET, SUBNET6 = IPv4Network("172.30.192.0/20"), IPv6Network("fd00:30:192::/64")
SMALL: Final = 1400
PUBLISHED: Final = 8189
KINDS: Final[dict[str, dict[str, Any]]] = {
    "default-options": {},
    "internal": {"internal": True},
    "no-icc-small-mtu": {"icc": False, "mtu": SMALL},
}


@requirement("NET-6")
@pytest.mark.parametrize("how", ["started", pytest.param("connected", marks=requirement("NET-3"))])
def test_removal_of_network_in_use_is_refused(
    scene: Scene, runtime: Adapter, host: NetnsView, how: str
) -> None:
    """Removal of a network that a container uses is refused and changes nothing."""
    for name in ("used", "home"):
        scene.network(name)
    connected = how == "connected"
    scene.containers(a=Bridge("home" if connected else "used"), b=Bridge("home"))
    if connected:
        scene.connect("a", "used")
    before = host.snapshot()
    with pytest.raises(RuntimeRefused):
        runtime.remove_network("used")
    assert before.changes(host.snapshot()) == []
    assert runtime.network_facts("used").name == "used"
    assert scene.observed() == scene.promised()
    scene.remove("a")
    runtime.remove_network("used")
    with pytest.raises(RuntimeRefused):
        runtime.network_facts("used")
    runtime.network(next(item for item in scene.plan.networks if item.name == "used"))


@requirement("NET-6")
def test_removal_of_default_network_is_refused(scene: Scene, runtime: Adapter) -> None:
    """Removal of the default network is refused, whether or not containers use it."""
    with pytest.raises(RuntimeRefused):
        runtime.remove_network(DEFAULT_NETWORK)
    scene.containers(a=Bridge(), b=Bridge())
    assert scene.observed() == scene.promised()


@requirement("NET-6", "LIFE-5")
def test_removal_of_unknown_network_is_refused(runtime: Adapter) -> None:
    """Removal of a network that does not exist is refused."""
    with pytest.raises(RuntimeRefused):
        runtime.remove_network("nowhere")


@requirement("NET-6")
@pytest.mark.parametrize(
    "kind",
    [
        "default-options",
        pytest.param("internal", marks=requirement("INT-1")),
        pytest.param("no-icc-small-mtu", marks=requirement("ICC-1")),
    ],
)
def test_removed_network_leaves_no_link_route_or_rule(
    scene: Scene, runtime: Adapter, host: NetnsView, guard: LeakGuard, kind: str
) -> None:
    """A removed network leaves no link, address, route or rule.

    The network's name and subnet can be used again.
    """
    six = {"subnet6": SUBNET6} if has_ipv6(runtime) else {}
    options = {"subnet": SUBNET, **six, **KINDS[kind]}
    with guard.holding():
        made = scene.network("short-lived", **options)
        bridge = made.facts.interface
        assert bridge is not None
        scene.containers(a=made)
        assert mentioned(scene.netns(GATEWAY), bridge)
        scene.remove("a")
        scene.remove_network("short-lived")
    assert mentioned(host, bridge) == []
    scene.network("short-lived", **options)


@requirement("NET-6", "NET-8")
def test_network_with_reused_name_has_only_the_new_settings(scene: Scene) -> None:
    """A new network does not inherit subnet, MTU or isolation of a removed one of the same name."""
    closed = {"internal": True} if Feature.INTERNAL in scene.runtime.features else {}
    scene.containers(a=scene.network("name", subnet=SUBNET, mtu=SMALL, **closed))
    assert scene["a"].net.links()["eth0"].mtu == SMALL
    scene.remove("a")
    scene.remove_network("name")
    gateways = scene.network("name").facts.gateways
    inside = scene.container("a", Bridge("name")).net
    assert SUBNET not in {item.network for item in gateways}
    assert [item.network for item in inside.interfaces("eth0")] == [gateways[0].network]
    assert inside.links()["eth0"].mtu != SMALL
    assert any(route.destination is None for route in inside.routes())


@requirement("NET-6", "NET-2")
def test_other_networks_are_unchanged_by_network_removal(scene: Scene, host: NetnsView) -> None:
    """Removal of a network changes no links, rules or published ports of other networks."""
    lan, dmz = (scene.network(name, ipv6=has_ipv6(scene.runtime)) for name in ("lan", "dmz"))
    ports = both(PUBLISHED, INSIDE) if Feature.PUBLISH in scene.runtime.features else ()
    scene.container("a", Bridge(lan.name), ports=ports)
    scene.containers(b=lan, c=dmz)
    before = host.snapshot()
    passing = scene.network("passing")
    scene.containers(d=passing)
    scene.remove("d")
    scene.remove_network("passing")
    assert before.changes(host.snapshot()) == []
    assert scene.observed() == scene.promised()
    for port in ports:
        with Listener(
            scene["a"].net, "udp" if port.protocol == "udp" else "tcp", port=INSIDE
        ) as listener:
            call: dict[str, Any] = {"port": PUBLISHED, "answered": True}
            assert listener.reached_from(
                scene.netns(ATTACKER), at=scene.world.address(HOST, 4), **call
            )
            assert listener.reached_from(host, at=LOOPBACKS[4], **call)


def mentioned(host: NetnsView, bridge: str) -> list[str]:
    """Return the host's state that mentions a bridge's name or subnet."""
    words = (bridge, str(SUBNET), str(SUBNET6))
    return [
        name
        for name, known in host.snapshot().facts.items()
        if any(word in text for word in words for text in (name, *known.values()))
    ]
