"""Ports published on the host's loopback: the host alone reaches them, whatever is forged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, HOST, INTERNET, NS1, Family, Protocol
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import TRANSPORTS, Listener, Transport, own_port
from harness.testbench.packets import craft
from harness.testbench.packets.capture import Capture, Tap
from harness.testbench.packets.craft import send_frame
from harness.testbench.packets.expect import like
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from suites.ports.published import (
    INSIDE,
    PORTS,
    PortCall,
    PublishedContainer,
    addresses,
    both,
    home,
    is_relayed,
    link_of,
)
from suites.support.features import restarts

INNER: Final = 8110
"""The port that is published on the loopback."""
SERVICE: Final = 8111
"""A port of the host's own, where a service of its listens."""
PASSING: Final = 8112
"""A port of somebody else's, for a while."""
WORD: Final = b"forged, every bit of it"
CONTROL: Final = b"just as it should be"
NEIGHBOURS: Final = (
    ATTACKER,
    NS1,
    pytest.param("peer", marks=requirement("BR-5")),
    pytest.param("stranger", marks=requirement("PUB-5", "BR-5")),
)
"""Who has a link with the host: on the LAN, on br0, on two networks of the runtime's."""


@pytest.fixture(scope="module")
def inner(market: Scene, family: Family) -> Iterator[Scene]:
    """The market, with a container `inner` that publishes `INNER` on the loopback.

    It has been started again, where it can be.
    """
    ports = both(INNER, at=LOOPBACKS[family])
    made = market.container("inner", home(market.runtime, family), ports=ports)
    if restarts(market.runtime):
        made.stop()
        made.start()
    yield market
    market.remove("inner")


@pytest.fixture(scope="module")
def taps(inner: Scene) -> Iterator[TapPool]:
    """Taps that are closed before what they are on is removed."""
    with TapPool() as opened:
        yield opened


@requirement("PUB-3", "PUB-2")
def test_the_host_alone_reaches_it(inner: Scene, transport: Transport, family: Family) -> None:
    """By its loopback; nobody, itself neither, by any other address that it has."""
    inside = (item.name for item in inner.plan.containers)
    everybody = (INTERNET, ATTACKER, NS1, HOST, *inside)
    with PublishedContainer(inner, inner["inner"], transport, family, INNER).open() as shop:
        assert shop.serves(HOST, LOOPBACKS[family])
        calls = [PortCall(who, at) for who in everybody for at in addresses(inner, family)]
        beside = [PortCall(HOST, IPv4Address("127.0.0.2"))] if family == 4 else []
        assert shop.overhears(calls + beside) == []


@requirement("PUB-1", "PUB-10")
def test_the_host_reaches_it_when_anothers_port_has_gone(inner: Scene, family: Family) -> None:
    """As before: that of a container on the same network, which is stopped and removed."""
    passing = inner.container("passing", home(inner.runtime, family), ports=both(PASSING))
    heard = []
    changes: list[Callable[[], object]] = [passing.facts, passing.stop, passing.remove]
    for change in changes:
        change()
        shops = (
            PublishedContainer(inner, inner["inner"], item, family, INNER) for item in TRANSPORTS
        )
        heard.append([shop.reaches(HOST, LOOPBACKS[family]) for shop in shops])
    assert heard[1:] == heard[:1] * 2


@requirement("PUB-3")
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_forged_frames_for_the_loopback_get_in_as_declared(
    inner: Scene, runtime: Adapter, family: Family, taps: TapPool, neighbour: str
) -> None:
    """With the host's MAC, whoever they say they are from; what is proper gets in beside them."""
    forging = ForgingNeighbour(inner, neighbour, family)
    forged = forging.frames(LOOPBACKS[family], INNER, WORD)
    proper = [
        frame
        for port in PORTS.values()
        for frame in forging.calls(forging.own(), forging.host(), port, CONTROL)
    ]
    with Capture(watched(inner, taps)) as wire:
        send_frame(inner.place(neighbour), *forged, *proper)
        inner.settle()
    assert_came(wire, forged)
    if neighbour != "stranger" or runtime.dialect.published_across == "reachable":
        # A process in user space takes connections itself, before it makes one to the container:
        # pasta and rootlesskit those of all, docker-proxy those of containers.
        proxied = is_relayed(runtime) or neighbour in ("peer", "stranger")
        for kind in (UDP,) if proxied else (UDP, TCP):
            assert like(kind(dport=INSIDE) / CONTROL, within(wire, "shop"))
    got_in = carrying(WORD, within(wire, "inner"))
    # The kernel itself drops what says on a wire that it is for ::1 (RFC 4291, 2.5.3).
    if runtime.dialect.loopback_ports == "host-only" or family == 6:
        assert got_in == []
    else:
        assert got_in or neighbour != ATTACKER


@requirement("PUB-3", "BR-9")
@pytest.mark.parametrize("neighbour", [ATTACKER, NS1])
def test_its_own_address_is_no_way_round(
    inner: Scene, runtime: Adapter, family: Family, taps: TapPool, neighbour: str
) -> None:
    """What is sent there by way of the host is let in as to a container that publishes nothing."""
    forging = ForgingNeighbour(inner, neighbour, family)
    own = inner.place("inner").address(family)
    assert own
    frames = [frame for port in (INSIDE, INNER) for frame in forging.frames(own, port, WORD)]
    proper = forging.calls(forging.own(), forging.host(), PORTS["udp"], CONTROL)
    with Capture(watched(inner, taps)) as wire:
        send_frame(inner.place(neighbour), *frames, *proper)
        inner.settle()
    assert_came(wire, frames)
    assert like(UDP(dport=INSIDE) / CONTROL, within(wire, "shop"))
    got_in = carrying(WORD, within(wire, "inner"))
    assert bool(got_in) == (runtime.dialect.direct_routing == "accept"), got_in


@requirement("PUB-3")
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_nor_is_a_service_of_the_hosts_own_opened(
    inner: Scene, family: Family, neighbour: str
) -> None:
    """What the host was told so that its loopback can lead to a container is for itself alone."""
    forging = ForgingNeighbour(inner, neighbour, family)
    proper = forging.calls(forging.own(), forging.host(), SERVICE, CONTROL)
    with Listener(inner.place(HOST), "udp", family=family, port=SERVICE) as ear:
        for frames in (proper, forging.frames(LOOPBACKS[family], SERVICE, WORD), proper):
            send_frame(inner.place(neighbour), *frames)
            inner.settle()
        assert ear.heard()[0] == CONTROL
        assert ear.heard()[0] == CONTROL


@dataclass(frozen=True, slots=True)
class ForgingNeighbour:
    """A neighbour that puts frames on its link with the host, just as it likes."""

    scene: Scene
    neighbour: str
    family: Family
    port: int = field(default_factory=own_port)
    """Where it calls from: one flow's packets go where its first went, whoever sent that."""

    @property
    def link(self) -> str:
        """The host's interface on the link that they share."""
        if self.neighbour in self.scene.places:
            return "br0" if self.neighbour == NS1 else "eth0"
        (network,) = self.scene.plan.container(self.neighbour).networks
        name = self.scene.runtime.network_facts(network).interface
        assert name
        return name

    def own(self) -> Address:
        """Its own address."""
        address = self.scene.place(self.neighbour).address(self.family)
        assert address
        return address

    def host(self) -> Address:
        """The host's address."""
        return self.scene.world.address(HOST, self.family)

    def frames(self, target: Address, port: int, word: bytes) -> list[Packet]:
        """Calls from itself, from the loopback, from the host and from a container."""
        others = (
            LOOPBACKS[self.family],
            self.host(),
            self.scene.place("peer").address(self.family),
        )
        sources = dict.fromkeys((self.own(), *others))
        return [frame for source in sources for frame in self.calls(source, target, port, word)]

    def calls(
        self, source: Address | None, target: Address, port: int, word: bytes
    ) -> list[Packet]:
        """A datagram and a SYN, with the MAC of the host's."""
        near, far = self.scene.place(self.neighbour).links(), self.scene.place(HOST).links()
        head = Ether(src=near["eth0"].mac, dst=far[self.link].mac)
        packet = head / craft.ip(self.family, src=source, dst=target)
        return [
            packet / craft.request(self.family, protocol, sport=self.port, dport=port) / word
            for protocol in (Protocol.UDP, Protocol.TCP)
        ]


def watched(inner: Scene, taps: TapPool) -> list[Tap]:
    """Where frames are looked for: at every link of the host, also a veth's outer end, and inside.

    Inside `inner`, and inside `shop`, where what is proper arrives.
    """
    inside = [taps.tap(inner.place(name), link_of(inner, name)) for name in ("inner", "shop")]
    return [taps.tap(inner.place(HOST), ""), *inside]


def within(wire: Capture, name: str) -> list[Frame]:
    """What was seen in a place, at whichever link."""
    return [frame for frame in wire.frames() if frame.where.startswith(f"{name}/")]


def carrying(word: bytes, frames: Sequence[Frame]) -> list[str]:
    """The frames that carry a word."""
    return [str(frame) for frame in frames if word in frame.data]


def assert_came(wire: Capture, frames: Sequence[Packet]) -> None:
    """Frames that were sent did come to the host: what became of them was decided there."""
    came = {frame.data for frame in wire.frames() if frame.where.startswith(f"{HOST}/")}
    assert {bytes(frame) for frame in frames} <= came
