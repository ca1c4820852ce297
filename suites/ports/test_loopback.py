"""Ports published on the host's loopback, which only the host may reach."""

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
from harness.testbench.listener import TRANSPORTS, Listener, Transport, own_port
from harness.testbench.packets import craft
from harness.testbench.packets.capture import Capture, Tap, TapPool
from harness.testbench.packets.craft import send_frame
from harness.testbench.packets.expect import like
from harness.testbench.packets.packet_ring import Frame
from harness.testbench.scene import LOOPBACKS, Scene
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
"""Port published on the loopback."""
SERVICE: Final = 8111
"""Port of a service on the host."""
PASSING: Final = 8112
"""Port that another container publishes temporarily."""
WORD: Final = b"forged, every bit of it"
CONTROL: Final = b"just as it should be"
NEIGHBOURS: Final = (
    ATTACKER,
    NS1,
    pytest.param("peer", marks=requirement("BR-5")),
    pytest.param("outside", id="other-network", marks=requirement("PUB-5", "BR-5")),
)
"""Neighbours of the host: on the LAN, on br0, and on two networks of containers."""


@pytest.fixture(scope="module")
def loopback_scene(ports_scene: Scene, family: Family) -> Iterator[Scene]:
    """Add the container `inner`, which publishes the port `INNER` on the loopback.

    The container is restarted, where possible.
    """
    ports = both(INNER, at=LOOPBACKS[family])
    made = ports_scene.container("inner", home(ports_scene.runtime, family), ports=ports)
    if restarts(ports_scene.runtime):
        made.stop()
        made.start()
    yield ports_scene
    ports_scene.remove("inner")


@pytest.fixture(scope="module")
def taps(loopback_scene: Scene) -> Iterator[TapPool]:
    """Open packet taps, which are closed before their interfaces are removed."""
    with TapPool() as opened:
        yield opened


@requirement("PUB-3", "PUB-2")
def test_only_the_host_reaches_port_published_on_loopback(
    loopback_scene: Scene, transport: Transport, family: Family
) -> None:
    """Only the host reaches a port published on the loopback, and only by the loopback address."""
    inside = (item.name for item in loopback_scene.plan.containers)
    everybody = (INTERNET, ATTACKER, NS1, HOST, *inside)
    with PublishedContainer(
        loopback_scene, loopback_scene["inner"], transport, family, INNER
    ).open() as published:
        assert published.serves(HOST, LOOPBACKS[family])
        calls = [
            PortCall(caller, at) for caller in everybody for at in addresses(loopback_scene, family)
        ]
        beside = [PortCall(HOST, IPv4Address("127.0.0.2"))] if family == 4 else []
        assert published.delivered(calls + beside) == []


@requirement("PUB-1", "PUB-10")
def test_port_published_on_loopback_survives_end_of_another_container(
    loopback_scene: Scene, family: Family
) -> None:
    """A port published on the loopback answers while another container's port starts and ends."""
    passing = loopback_scene.container(
        "passing", home(loopback_scene.runtime, family), ports=both(PASSING)
    )
    received = []
    changes: list[Callable[[], object]] = [passing.facts, passing.stop, passing.remove]
    for change in changes:
        change()
        published_on = (
            PublishedContainer(loopback_scene, loopback_scene["inner"], item, family, INNER)
            for item in TRANSPORTS
        )
        received.append([published.reaches(HOST, LOOPBACKS[family]) for published in published_on])
    assert received[1:] == received[:1] * 2


@requirement("PUB-3")
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_spoofed_frames_to_loopback_port_enter_only_as_declared(
    loopback_scene: Scene, runtime: Adapter, family: Family, taps: TapPool, neighbour: str
) -> None:
    """Spoofed frames reach a port published on the loopback only if the runtime declares so.

    The frames have the host's MAC and a loopback target address, with several sources. Regular
    frames to other ports arrive.
    """
    forging = ForgingNeighbour(loopback_scene, neighbour, family)
    spoofed = forging.frames(LOOPBACKS[family], INNER, WORD)
    proper = [
        frame
        for port in PORTS.values()
        for frame in forging.calls(forging.own(), forging.host(), port, CONTROL)
    ]
    with Capture(watched(loopback_scene, taps)) as wire:
        send_frame(loopback_scene.netns(neighbour), *spoofed, *proper)
        loopback_scene.settle()
    assert_came(wire, spoofed)
    if neighbour != "outside" or runtime.dialect.published_across == "reachable":
        # A process in user space accepts a connection before it connects to the container: pasta
        # and rootlesskit accept all connections, docker-proxy those of containers.
        proxied = is_relayed(runtime) or neighbour in ("peer", "outside")
        for kind in (UDP,) if proxied else (UDP, TCP):
            assert like(kind(dport=INSIDE) / CONTROL, within(wire, "published"))
    got_in = carrying(WORD, within(wire, "inner"))
    # The kernel itself drops packets for ::1 from a link (RFC 4291, 2.5.3).
    if runtime.dialect.loopback_ports == "host-only" or family == 6:
        assert got_in == []
    else:
        assert got_in or neighbour != ATTACKER


@requirement("PUB-3", "BR-9")
@pytest.mark.parametrize("neighbour", [ATTACKER, NS1])
def test_publishing_on_loopback_does_not_open_container_address(
    loopback_scene: Scene, runtime: Adapter, family: Family, taps: TapPool, neighbour: str
) -> None:
    """A port published on the loopback does not make the container's own address reachable.

    Packets routed to that address arrive only if the runtime declares so for any container.
    """
    forging = ForgingNeighbour(loopback_scene, neighbour, family)
    own = loopback_scene.netns("inner").address(family)
    assert own
    frames = [frame for port in (INSIDE, INNER) for frame in forging.frames(own, port, WORD)]
    proper = forging.calls(forging.own(), forging.host(), PORTS["udp"], CONTROL)
    with Capture(watched(loopback_scene, taps)) as wire:
        send_frame(loopback_scene.netns(neighbour), *frames, *proper)
        loopback_scene.settle()
    assert_came(wire, frames)
    assert like(UDP(dport=INSIDE) / CONTROL, within(wire, "published"))
    got_in = carrying(WORD, within(wire, "inner"))
    assert bool(got_in) == (runtime.dialect.direct_routing == "accept"), got_in


@requirement("PUB-3")
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_port_published_on_loopback_opens_no_host_service(
    loopback_scene: Scene, family: Family, neighbour: str
) -> None:
    """A port published on the loopback makes no other service on the host's loopback reachable.

    A runtime may change sysctls so that packets to the loopback are routed to a container.
    """
    forging = ForgingNeighbour(loopback_scene, neighbour, family)
    proper = forging.calls(forging.own(), forging.host(), SERVICE, CONTROL)
    with Listener(loopback_scene.netns(HOST), "udp", family=family, port=SERVICE) as listener:
        for frames in (proper, forging.frames(LOOPBACKS[family], SERVICE, WORD), proper):
            send_frame(loopback_scene.netns(neighbour), *frames)
            loopback_scene.settle()
        assert listener.receive()[0] == CONTROL
        assert listener.receive()[0] == CONTROL


@dataclass(frozen=True, slots=True)
class ForgingNeighbour:
    """A neighbour that sends crafted frames to the host on their common link."""

    scene: Scene
    neighbour: str
    family: Family
    port: int = field(default_factory=own_port)
    """Source port, different for each test: conntrack translates a flow as its first packet."""

    @property
    def link(self) -> str:
        """Return the host's interface on the link that it shares with the neighbour."""
        if self.neighbour in self.scene.world_netns:
            return "br0" if self.neighbour == NS1 else "eth0"
        (network,) = self.scene.plan.container(self.neighbour).networks
        name = self.scene.runtime.network_facts(network).interface
        assert name
        return name

    def own(self) -> Address:
        """Return the neighbour's own address."""
        address = self.scene.netns(self.neighbour).address(self.family)
        assert address
        return address

    def host(self) -> Address:
        """Return the host's address."""
        return self.scene.world.address(HOST, self.family)

    def frames(self, target: Address, port: int, word: bytes) -> list[Packet]:
        """Craft frames from several sources: the neighbour, the loopback, the host, a container."""
        others = (
            LOOPBACKS[self.family],
            self.host(),
            self.scene.netns("peer").address(self.family),
        )
        sources = dict.fromkeys((self.own(), *others))
        return [frame for source in sources for frame in self.calls(source, target, port, word)]

    def calls(
        self, source: Address | None, target: Address, port: int, word: bytes
    ) -> list[Packet]:
        """Craft a UDP datagram and a TCP SYN, both addressed to the host's MAC."""
        near, far = self.scene.netns(self.neighbour).links(), self.scene.netns(HOST).links()
        head = Ether(src=near["eth0"].mac, dst=far[self.link].mac)
        packet = head / craft.ip(self.family, src=source, dst=target)
        return [
            packet / craft.request(self.family, protocol, sport=self.port, dport=port) / word
            for protocol in (Protocol.UDP, Protocol.TCP)
        ]


def watched(loopback_scene: Scene, taps: TapPool) -> list[Tap]:
    """Open packet taps at every link of the host, and in the containers `inner` and `published`.

    `published` receives the regular frames.
    """
    inside = [
        taps.tap(loopback_scene.netns(name), link_of(loopback_scene, name))
        for name in ("inner", "published")
    ]
    return [taps.tap(loopback_scene.netns(HOST), ""), *inside]


def within(wire: Capture, name: str) -> list[Frame]:
    """Return the frames that were captured at any link of a namespace."""
    return [frame for frame in wire.frames() if frame.where.startswith(f"{name}/")]


def carrying(word: bytes, frames: Sequence[Frame]) -> list[str]:
    """Return the frames whose payload has a word."""
    return [str(frame) for frame in frames if word in frame.data]


def assert_came(wire: Capture, frames: Sequence[Packet]) -> None:
    """Assert that the sent frames arrived at the host."""
    came = {frame.data for frame in wire.frames() if frame.where.startswith(f"{HOST}/")}
    assert {bytes(frame) for frame in frames} <= came
