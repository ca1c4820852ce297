"""The operator's nft rules, and the repair that the runtime documents for a firewall flush."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from harness.model.features import Feature
from harness.model.plan import ATTACKER, GATEWAY, HOST, NS1, Bridge, Family
from harness.model.topology import Address
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Listener
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import send_frame
from harness.testbench.scene import LOOPBACKS, Scene
from harness.world.build import World
from suites.ports.published import both, reaches_host
from suites.support import operator_firewall
from suites.support.features import lan, restarts
from suites.support.three_containers import DUAL, ThreeContainers, both_families

PUBLISHED: Final = 8195
INSIDE: Final = 31080
UNASSIGNED: Final = {4: "10.99.0.9", 6: "fd99::9"}
"""Source addresses that are not assigned."""


@requirement("BYS-3", "BYS-4")
def test_operator_firewall_rules_survive_container_lifecycle(scene: Scene) -> None:
    """The operator's nft tables, chains, policies and rules survive each step of containers.

    The containers are started, connected, stopped and removed.
    """
    host = scene.netns(HOST)
    with operator_firewall.operator_table(host):
        before = operator_firewall.facts(host)
        assert any(name.startswith("nft rule ") for name in before)
        own = lan(scene)
        assert operator_firewall.facts(host) == before
        scene.containers(a=own, b=own, c=Bridge())
        assert operator_firewall.facts(host) == before
        assert scene.observed() == scene.promised()
        if Feature.PUBLISH in scene.runtime.features:
            scene.container("web", Bridge(), ports=both(PUBLISHED, INSIDE))
            assert operator_firewall.facts(host) == before
            late = both(PUBLISHED + 1, INSIDE)
            scene.refusal("late", Bridge(), ports=late, command=("/no/such/command",))
            assert operator_firewall.facts(host) == before
        if Feature.CONNECT in scene.runtime.features:
            for change in (scene.connect, scene.disconnect):
                change("c", "lan")
                assert operator_firewall.facts(host) == before
        scene["a"].stop()
        if restarts(scene.runtime):
            scene["a"].start()
        scene.runtime.repair()
        assert operator_firewall.facts(host) == before
        scene.close()
        assert operator_firewall.facts(host) == before


@requirement("BYS-3")
def test_documented_repair_restores_reachability_after_firewall_flush(
    start_runtime: RuntimeStarter,
) -> None:
    """The runtime's documented repair restores all promised reachability after a firewall flush.

    The control is that reachability differs from the promises before the repair. The operator's
    rules survive the repair. The test has a separate world, because an incomplete repair would
    disturb other tests.
    """
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as scene:
        host = scene.netns(HOST)
        with operator_firewall.operator_table(host):
            before = operator_firewall.facts(host)
            own = lan(scene)
            scene.containers(a=own, b=own, c=lan(scene, "dmz"), d=Bridge())
            operator_firewall.flush(host)
            operator_firewall.load(host)
            assert operator_firewall.facts(host) == before
            assert scene.observed() != scene.promised()
            runtime.repair()
            assert operator_firewall.facts(host) == before
            assert scene.observed() == scene.promised()


@requirement("BYS-3", "PUB-1")
@both_families
def test_published_ports_work_after_firewall_flush_and_repair(
    start_runtime: RuntimeStarter, family: Family
) -> None:
    """Published ports answer the LAN and the host after a firewall flush and the repair."""
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as scene:
        host, attacker = scene.netns(HOST), scene.netns(ATTACKER)
        mode = Bridge(scene.network(DUAL, ipv6=True).name) if family == 6 else Bridge()
        web = scene.container("web", mode, ports=both(PUBLISHED, INSIDE))
        with operator_firewall.operator_table(host):
            operator_firewall.flush(host)
            operator_firewall.load(host)
            runtime.repair()
        own = world.address(HOST, family)
        for transport in TRANSPORTS:
            with Listener(web.net, transport, family=family, port=INSIDE) as listener:
                for caller, address in ((attacker, own), (host, own), (host, LOOPBACKS[family])):
                    assert listener.reached_from(caller, at=address, port=PUBLISHED, answered=True)


@requirement("BYS-3", "PUB-4")
@both_families
def test_hairpin_and_spoofing_protection_work_after_firewall_flush_and_repair(
    start_runtime: RuntimeStarter, family: Family
) -> None:
    """Hairpin and spoofing protection work as before after a firewall flush and the repair.

    They are tested on a user-defined network.
    """
    with (
        World.build() as world,
        start_runtime(world) as runtime,
        Scene(world, runtime) as scene,
        TapPool() as outside,
        TapPool() as inside,
    ):
        mode = lan(scene, family=family)
        scene.container("a", mode, ports=both(PUBLISHED, INSIDE))
        scene.container("b", mode)
        scene.ready()
        trio = ThreeContainers(scene, family, mode.network, outside, inside)
        before = hairpins(trio), forgeries(trio)
        with operator_firewall.operator_table(scene.netns(HOST)):
            operator_firewall.flush(scene.netns(HOST))
            operator_firewall.load(scene.netns(HOST))
            runtime.repair()
        assert (hairpins(trio), forgeries(trio)) == before


def hairpins(trio: ThreeContainers) -> list[Address]:
    """Return, by transport, the source that `a` sees when its peer uses the published port."""
    seen = []
    for transport in TRANSPORTS if reaches_host(trio.scene, "b", trio.address(HOST)) else ():
        with Listener(trio.netns("a"), transport, family=trio.family, port=INSIDE) as listener:
            exchange = listener.reached_from(trio.netns("b"), at=trio.address(HOST), port=PUBLISHED)
            assert exchange, transport
            seen.append(exchange.seen[0])
    return seen


def forgeries(trio: ThreeContainers) -> list[str]:
    """Return the spoofed source addresses of those packets from `a` that leave the host."""
    sources = (trio.address("b"), trio.address(NS1), ip_address(UNASSIGNED[trio.family]))
    head = Ether(src=trio.mac("a"), dst=trio.mac(GATEWAY))
    with trio.capture(HOST) as wire:
        for source in sources:
            packet = trio.ip(source, ATTACKER) / UDP(dport=9) / f"as {source}".encode()
            send_frame(trio.netns("a"), head / packet)
    data = [frame.data for frame in wire.frames()]
    return [str(source) for source in sources if any(f"as {source}".encode() in it for it in data)]
