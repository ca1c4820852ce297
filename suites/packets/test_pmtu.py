"""Path MTU discovery over a link with a small MTU: the sender gets the error, and data arrives."""

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
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import fragment
from harness.testbench.scene import Scene
from harness.testbench.transfer import Transfer, expected
from harness.world.build import World
from harness.world.service_protocols import UDP_PORTS
from suites.support.features import has_ipv6
from suites.support.three_containers import DUAL, ThreeContainers, both_families

NARROW: Final = 1400
"""MTU in bytes of the link behind the first router. Every other link has 1500 bytes."""
WIDE: Final = 9000
TOO_LONG: Final = b"x" * 1440
"""Payload that fits an MTU of 1500 bytes with its headers, but not the MTU `NARROW`."""
FITS: Final = b"x" * 1300
FRAGMENTED: Final = b"x" * 3000
"""Payload that fits no link.

A datagram that arrives in fragments and fits the host's link leaves unfragmented where bridged
frames pass the firewall: conntrack reassembles it, and the fragment size is lost between the bridge
and IP. Over IPv6 it is then dropped at the narrow link.
"""
OWN_PORT: Final = 31043
ECHO: Final = UDP_PORTS["echo"]
SIZE: Final = 300_000
"""Length of a transfer in bytes, so short that its frames fit in the buffer of a tap."""
ETHERNET: Final = 14
"""Length of an Ethernet header in bytes."""

pytestmark = both_families


@pytest.fixture(scope="module")
def narrow_scene(start_runtime: RuntimeStarter) -> Iterator[Scene]:
    """Build a separate world with a small-MTU link, so that no other test learns its path MTU."""
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
    """Open packet taps on the namespaces of the world with the small-MTU link."""
    with TapPool() as opened:
        yield opened


@pytest.fixture
def narrow_trio(
    narrow_scene: Scene, narrow_wires: TapPool, family: Family
) -> Iterator[ThreeContainers]:
    """Start a container `a` that does not know the path MTU yet."""
    network = DUAL if family == 6 else DEFAULT_NETWORK
    container = narrow_scene.container("a", Bridge(network))
    narrow_scene.ready()
    with TapPool() as own:
        yield ThreeContainers(narrow_scene, family, network, narrow_wires, own)
    container.remove()


@pytest.fixture
def wide_trio(
    narrow_scene: Scene, narrow_wires: TapPool, family: Family
) -> Iterator[ThreeContainers]:
    """Start a container `a` on a network whose links have the largest MTU."""
    narrow_scene.network("wide", mtu=WIDE, ipv6=family == 6)
    container = narrow_scene.container("a", Bridge("wide"))
    narrow_scene.ready()
    with TapPool() as own:
        yield ThreeContainers(narrow_scene, family, "wide", narrow_wires, own)
    container.remove()
    narrow_scene.remove_network("wide")


@requirement("BR-22")
@pytest.mark.parametrize("protocol", [Protocol.ICMP, Protocol.UDP])
def test_too_large_packet_is_reported_with_the_mtu(
    narrow_trio: ThreeContainers, protocol: Protocol
) -> None:
    """The router before a small-MTU link reports a too large packet, with the MTU of that link.

    The container's kernel then uses this value as the path MTU.
    """
    with (
        narrow_trio.capture("a", INTERNET) as wire,
        narrow_trio.client(
            "a", INTERNET, protocol, port=ECHO, own_port=OWN_PORT, whole=True
        ) as call,
    ):
        call.send(TOO_LONG)
        narrow_trio.settle()
        assert call.error() == "packet-too-big"
        with narrow_trio.client("a", INTERNET, Protocol.UDP) as later:
            assert later.mtu == NARROW
        wire.expect_none(narrow_trio.ip(HOST, INTERNET), at=narrow_trio.at(INTERNET))
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            call.send(TOO_LONG)
        call.send(FITS)
        call.receive()
    router = pick(narrow_trio.scene.world.topology.lan_gateway, narrow_trio.family).ip
    quoted = narrow_trio.ip("a", INTERNET) / narrow_trio.request(
        protocol, sport=OWN_PORT, dport=ECHO
    )
    wire.expect_one(
        narrow_trio.ip(router, "a") / narrow_trio.error("packet-too-big", mtu=NARROW) / quoted,
        at=narrow_trio.at("a"),
    )


@requirement("BR-22")
def test_only_the_sender_fragments_after_packet_too_big(narrow_trio: ThreeContainers) -> None:
    """After packet-too-big, the container itself fragments its datagrams, and no router does."""
    with narrow_trio.client("a", INTERNET, Protocol.UDP, port=ECHO) as call:
        call.send(TOO_LONG)
        narrow_trio.settle()
        assert call.error() == "packet-too-big"
        with narrow_trio.capture("a", INTERNET) as wire:
            call.send(FRAGMENTED)
            assert b'"size": 3000' in call.receive()
    left = wire.matching(
        fragment(narrow_trio.family, src=narrow_trio.address("a")), at=narrow_trio.at("a")
    )
    came = wire.matching(
        fragment(narrow_trio.family, src=narrow_trio.address(HOST)), at=narrow_trio.at(INTERNET)
    )
    assert [frame.length for frame in left] == [frame.length for frame in came]
    assert max(frame.length for frame in left) <= ETHERNET + NARROW


@requirement("BR-22")
def test_large_tcp_transfer_passes_a_narrow_link(narrow_trio: ThreeContainers) -> None:
    """A large TCP upload and a download arrive over a small-MTU link, in smaller segments."""
    transfer = Transfer(
        narrow_trio.netns("a"), narrow_trio.netns(INTERNET), narrow_trio.address(INTERNET)
    )
    with narrow_trio.capture("a") as wire:
        assert transfer.upload(SIZE) == expected(SIZE)
    too_big = narrow_trio.error("packet-too-big", mtu=NARROW)
    assert wire.matching(too_big / narrow_trio.ip("a", INTERNET) / TCP())
    assert transfer.download(SIZE) == expected(SIZE)


@requirement("BR-22", "NET-8")
def test_bridge_reports_uplink_mtu_to_network_with_larger_mtu(wide_trio: ThreeContainers) -> None:
    """If a network has a larger MTU than the uplink, the bridge reports the uplink's MTU."""
    uplink = wide_trio.netns(HOST).links()["eth0"].mtu
    with (
        wide_trio.capture("a") as wire,
        wide_trio.client(
            "a", INTERNET, Protocol.UDP, port=ECHO, own_port=OWN_PORT, whole=True
        ) as call,
    ):
        call.send(FRAGMENTED)
        wide_trio.settle()
        assert call.error() == "packet-too-big"
    quoted = wide_trio.ip("a", INTERNET) / wide_trio.request(
        Protocol.UDP, sport=OWN_PORT, dport=ECHO
    )
    wire.expect_one(
        wide_trio.ip(GATEWAY, "a") / wide_trio.error("packet-too-big", mtu=uplink) / quoted,
        at=wide_trio.at("a"),
    )
    ends = wide_trio.netns("a"), wide_trio.netns(INTERNET), wide_trio.address(INTERNET)
    assert Transfer(*ends).upload(SIZE) == expected(SIZE)
