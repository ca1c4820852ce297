"""The bridge's MAC, reused addresses, and networks without a free address."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import DEFAULT_NETWORK, HOST, Bridge, Family
from harness.plugin.marks import requirement
from harness.testbench.client import round_trip
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene
from linux.rtnetlink_dump import Link
from suites.support.dns import held
from suites.support.features import restarts
from suites.support.three_containers import both_families

SUBNET: Final = IPv4Network("172.30.15.0/24")
SUBNET6: Final = IPv6Network("fd00:15::/64")
"""Requested subnets: some runtimes accept a requested address only with them."""

SMALL: Final = IPv4Network("172.30.15.0/29")
SMALL6: Final = IPv6Network("fd00:15::/125")
ROOM: Final = 6
"""Largest number of containers on the small networks."""

ANOTHER_MAC = "02:00:5e:10:00:15"
"""A locally administered MAC that no interface has."""
WORD = b"is it you?"
NAMES = ("first", "second", "third")


@requirement("BR-14")
def test_bridge_mac_survives_container_lifecycle(
    scene: Scene, runtime: Adapter, host: NetnsView
) -> None:
    """A bridge keeps its MAC while containers start, restart and are removed.

    The container with the lowest MAC on the host is removed first.
    """
    new = Feature.NETWORKS in runtime.features
    network = scene.network("changing").name if new else DEFAULT_NETWORK
    facts = runtime.network_facts(network)

    def macs() -> list[str]:
        return [link.mac for link in host.links().values() if link.name == facts.interface]

    seen = macs()  # the MAC of a bridge without ports, where the runtime creates one
    for name in NAMES:
        scene.container(name, Bridge(network))
        seen += macs()
    if restarts(runtime):
        for change in (scene[NAMES[0]].stop, scene[NAMES[0]].start):
            change()
            seen += macs()
    *going, last = sorted(NAMES, key=lambda name: host_end(scene, name).mac)
    talk = (scene[last].net, host, facts.gateways[0].ip, WORD)
    round_trip(*talk)
    for name in going:
        scene[name].remove()
        seen += macs()
    assert len(set(seen)) == 1
    assert round_trip(*talk) == (WORD, WORD)


@requirement("BR-15")
@both_families
def test_reused_address_is_reachable_at_once(scene: Scene, host: NetnsView, family: Family) -> None:
    """A new container with a reused address is reachable at once by peers that know the old MAC."""
    own: dict[str, Any] = {"subnet": SUBNET} | ({"subnet6": SUBNET6} if family == 6 else {})
    network = Bridge(scene.network("reused", **own).name)
    peer, old = scene.container("peer", network), scene.container("old", network)
    address, old_mac = old.net.address(family), old.net.links()["eth0"].mac
    assert address is not None
    for caller in (peer.net, host):
        round_trip(caller, old.net, address, WORD)
    old.remove()
    options: dict[str, Any] = {"ip" if family == 4 else "ip6": address, "mac": ANOTHER_MAC}
    new = scene.container("new", network, **options)
    assert new.net.links()["eth0"].mac != old_mac
    for caller in (peer.net, host):
        assert round_trip(caller, new.net, address, WORD) == (WORD, WORD)


@requirement("BR-15", "NET-3")
@both_families
def test_reused_address_is_reachable_at_once_after_connect(scene: Scene, family: Family) -> None:
    """A container that gets a reused address by connect is reachable at once.

    The peer still has the address in its neighbour cache, with the MAC of the former owner.
    """
    own: dict[str, Any] = {"subnet": SMALL} | ({"subnet6": SMALL6} if family == 6 else {})
    network = Bridge(scene.network("reused", **own).name)
    scene.network("aside", ipv6=family == 6)
    peer, old = scene.container("peer", network), scene.container("old", network, mac=ANOTHER_MAC)
    new = scene.container("new", Bridge("aside"))
    address = old.net.address(family)
    assert address is not None
    round_trip(peer.net, old.net, address, WORD)
    old.remove()
    for _ in range(ROOM):  # until the address is next, where the runtime assigns addresses in turn
        scene.connect("new", "reused")
        if address in held(scene, "new", family):
            break
        scene.disconnect("new", "reused")
    assert round_trip(peer.net, new.net, address, WORD) == (WORD, WORD)


@requirement("BR-16")
@pytest.mark.parametrize(
    ("room", "containers"),
    [
        ({"subnet": IPv4Network("172.30.7.0/30")}, 1),
        pytest.param({"subnet6": IPv6Network("fd00:68::/126")}, 2, marks=requirement("V6-1")),
    ],
    ids=["IPv4", "IPv6"],
)
def test_start_with_empty_address_pool_is_refused(
    scene: Scene, host: NetnsView, room: dict[str, Any], containers: int
) -> None:
    """A start on a network without a free address is refused with a reason and leaves nothing.

    After the removal of a container, its address is assigned again.
    """
    network = Bridge(scene.network("small", **room).name)
    full = [scene.container(f"fits{number}", network) for number in range(containers)]
    before = host.snapshot()
    refused = scene.refusal("one-too-many", network)
    assert refused.said.strip()
    assert before.changes(host.snapshot()) == []
    freed = {item.ip for item in full[0].net.interfaces("eth0")}
    full[0].remove()
    again = scene.container("one-too-many", network)
    assert freed & {item.ip for item in again.net.interfaces("eth0")}


def host_end(scene: Scene, name: str) -> Link:
    """Return the host's end of a container's veth pair."""
    peer = scene[name].net.links()["eth0"].peer
    (end,) = (link for link in scene.netns(HOST).links().values() if link.ifindex == peer)
    return end
