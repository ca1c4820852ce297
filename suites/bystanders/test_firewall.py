"""The operator's own rules survive, and what a flush takes is repaired as documented."""

from __future__ import annotations

from typing import Final

from harness.addresses import LOOPBACKS
from harness.fixtures import RuntimeStarter
from harness.marks import requirement
from harness.model import ATTACKER, HOST, Bridge, Family, Publish
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Ear
from harness.world.build import World
from suites.bystanders import operator
from suites.claimed import lan, restarts
from suites.trio import DUAL, both_families

PUBLISHED: Final = 8195
INSIDE: Final = 31080


@requirement("BYS-3", "BYS-4")
def test_the_operators_rules_survive(scene: Scene) -> None:
    """Same tables, chains with their policies, and rules in their places, step by step."""
    host = scene.place(HOST)
    with operator.operating(host):
        before = operator.facts(host)
        assert any(name.startswith("nft rule ") for name in before)
        own = lan(scene)
        assert operator.facts(host) == before
        scene.containers(a=own, b=own, c=Bridge())
        assert operator.facts(host) == before
        assert scene.observed() == scene.promised()
        scene["a"].stop()
        if restarts(scene.runtime):
            scene["a"].start()
        scene.runtime.repair()
        assert operator.facts(host) == before
        scene.close()
        assert operator.facts(host) == before


@requirement("BYS-3")
def test_a_flush_and_reload_is_repaired_as_documented(start_runtime: RuntimeStarter) -> None:
    """The flush breaks promises; after the repair all are kept, and the operator's rules stay.

    In a world of its own: what the repair leaves out would come back in the midst of another test.
    """
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as scene:
        host = scene.place(HOST)
        with operator.operating(host):
            before = operator.facts(host)
            own = lan(scene)
            scene.containers(a=own, b=own, c=lan(scene, "dmz"), d=Bridge())
            operator.flush(host)
            operator.load(host)
            assert operator.facts(host) == before
            assert scene.observed() != scene.promised()
            runtime.repair()
            assert operator.facts(host) == before
            assert scene.observed() == scene.promised()


@requirement("BYS-3", "PUB-1")
@both_families
def test_so_are_published_ports(start_runtime: RuntimeStarter, family: Family) -> None:
    """After the repair they answer to the LAN and to the host, over TCP and UDP."""
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as scene:
        host, attacker = scene.place(HOST), scene.place(ATTACKER)
        mode = Bridge(scene.network(DUAL, ipv6=True).name) if family == 6 else Bridge()
        ports = tuple(Publish(PUBLISHED, INSIDE, transport) for transport in TRANSPORTS)
        web = scene.container("web", mode, ports=ports)
        with operator.operating(host):
            operator.flush(host)
            operator.load(host)
            runtime.repair()
        own = world.address(HOST, family)
        for transport in TRANSPORTS:
            with Ear(web.net, transport, family=family, port=INSIDE) as ear:
                for caller, address in ((attacker, own), (host, own), (host, LOOPBACKS[family])):
                    assert ear.hears(caller, at=address, port=PUBLISHED, answered=True)
