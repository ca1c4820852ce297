"""A link further on that is narrower: who is told, and that everything still gets through."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

import pytest
from scapy.layers.inet import TCP

from harness.model.plan import DEFAULT_NETWORK, GATEWAY, HOST, INTERNET, Bridge, Family, Protocol
from harness.model.topology import Topology, pick
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench import transfer
from harness.testbench.packets.craft import fragment
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.service_protocols import UDP_PORTS
from suites.support.features import has_ipv6
from suites.support.three_containers import DUAL, ThreeContainers, both_families

NARROW: Final = 1400
"""MTU of the link behind the first router, in bytes. Every other link has 1500."""
WIDE: Final = 9000
TOO_LONG: Final = b"x" * 1440
"""What fits a link of 1500 together with its headers, and not that one."""
FITS: Final = b"x" * 1300
FRAGMENTED: Final = b"x" * 3000
"""What fits no link at all. (What fits the host's own and came in fragments goes on as a whole
where bridged frames pass the firewall: connection tracking puts it together, and how large the
fragments were is forgotten between the bridge and IP. Over IPv6 it is lost further on.)"""
OWN_PORT: Final = 31043
ECHO: Final = UDP_PORTS["echo"]
SIZE: Final = 300_000
"""Bytes: few enough frames for a tap to keep."""
ETHERNET: Final = 14
"""Length of an Ethernet header in bytes."""

pytestmark = both_families


@pytest.fixture(scope="module")
def narrow_scene(start_runtime: RuntimeStarter) -> Iterator[Scene]:
    """A world of its own with a narrow link in it: what it teaches kernels ends with it."""
    with (
        World.build(Topology(narrow_mtu=NARROW)) as world,
        start_runtime(world) as runtime,
        Scene(world, runtime) as scene,
    ):
        if has_ipv6(runtime):
            scene.network(DUAL, ipv6=True)
        yield scene


@pytest.fixture(scope="module")
def narrow_wires(narrow_scene: Scene) -> Iterator[TapPool]:
    """Taps on that world's own places."""
    with TapPool() as opened:
        yield opened


@pytest.fixture
def narrow(narrow_scene: Scene, narrow_wires: TapPool, family: Family) -> Iterator[ThreeContainers]:
    """A container `a` that does not know the path yet."""
    network = DUAL if family == 6 else DEFAULT_NETWORK
    container = narrow_scene.container("a", Bridge(network))
    narrow_scene.ready()
    with TapPool() as own:
        yield ThreeContainers(narrow_scene, family, network, narrow_wires, own)
    container.remove()


@pytest.fixture
def wide(narrow_scene: Scene, narrow_wires: TapPool, family: Family) -> Iterator[ThreeContainers]:
    """A container `a` on a network whose own links carry more than every other."""
    narrow_scene.network("wide", mtu=WIDE, ipv6=family == 6)
    container = narrow_scene.container("a", Bridge("wide"))
    narrow_scene.ready()
    with TapPool() as own:
        yield ThreeContainers(narrow_scene, family, "wide", narrow_wires, own)
    container.remove()
    narrow_scene.remove_network("wide")


@requirement("BR-22")
@pytest.mark.parametrize("protocol", [Protocol.ICMP, Protocol.UDP])
def test_what_is_too_big_is_told_with_the_mtu(narrow: ThreeContainers, protocol: Protocol) -> None:
    """The router before the narrow link says so; the container's kernel believes it."""
    with (
        narrow.capture("a", INTERNET) as wire,
        narrow.call("a", INTERNET, protocol, port=ECHO, own_port=OWN_PORT, whole=True) as call,
    ):
        call.say(TOO_LONG)
        narrow.settle()
        assert call.told() == "packet-too-big"
        with narrow.call("a", INTERNET, Protocol.UDP) as later:
            assert later.mtu == NARROW
        wire.expect_none(narrow.ip(HOST, INTERNET), at=narrow.at(INTERNET))
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.say(TOO_LONG)
        call.say(FITS)
        call.hear()
    router = pick(narrow.scene.world.topology.lan_gateway, narrow.family).ip
    quoted = narrow.ip("a", INTERNET) / narrow.request(protocol, sport=OWN_PORT, dport=ECHO)
    wire.expect_one(
        narrow.ip(router, "a") / narrow.error("packet-too-big", mtu=NARROW) / quoted,
        at=narrow.at("a"),
    )


@requirement("BR-22")
def test_the_sender_fragments_and_nobody_else(narrow: ThreeContainers) -> None:
    """Told once, the container fragments its datagrams itself, and so they arrive."""
    with narrow.call("a", INTERNET, Protocol.UDP, port=ECHO) as call:
        call.say(TOO_LONG)
        narrow.settle()
        assert call.told() == "packet-too-big"
        with narrow.capture("a", INTERNET) as wire:
            call.say(FRAGMENTED)
            assert b'"size": 3000' in call.hear()
    left = wire.matching(fragment(narrow.family, src=narrow.address("a")), at=narrow.at("a"))
    came = wire.matching(fragment(narrow.family, src=narrow.address(HOST)), at=narrow.at(INTERNET))
    assert [frame.length for frame in left] == [frame.length for frame in came]
    assert max(frame.length for frame in left) <= ETHERNET + NARROW


@requirement("BR-22")
def test_bulk_tcp_gets_through(narrow: ThreeContainers) -> None:
    """An upload shrinks its segments as it is told, and arrives whole; so does a download."""
    ends = narrow.place("a"), narrow.place(INTERNET), narrow.address(INTERNET)
    with narrow.capture("a") as wire:
        assert transfer.upload(*ends, SIZE) == transfer.sent(SIZE)
    told = narrow.error("packet-too-big", mtu=NARROW) / narrow.ip("a", INTERNET) / TCP()
    assert wire.matching(told)
    assert transfer.download(*ends, SIZE) == transfer.sent(SIZE)


@requirement("BR-22", "NET-8")
def test_the_hosts_own_link_may_be_the_narrow_one(wide: ThreeContainers) -> None:
    """On a network whose links carry more than the host's, the bridge's address says so."""
    uplink = wide.place(HOST).links()["eth0"].mtu
    with (
        wide.capture("a") as wire,
        wide.call("a", INTERNET, Protocol.UDP, port=ECHO, own_port=OWN_PORT, whole=True) as call,
    ):
        call.say(FRAGMENTED)
        wide.settle()
        assert call.told() == "packet-too-big"
    quoted = wide.ip("a", INTERNET) / wide.request(Protocol.UDP, sport=OWN_PORT, dport=ECHO)
    wire.expect_one(
        wide.ip(GATEWAY, "a") / wide.error("packet-too-big", mtu=uplink) / quoted, at=wide.at("a")
    )
    ends = wide.place("a"), wide.place(INTERNET), wide.address(INTERNET)
    assert transfer.upload(*ends, SIZE) == transfer.sent(SIZE)
