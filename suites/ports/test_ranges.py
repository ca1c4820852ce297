"""Published ranges of ports, automatic host ports, and ports published on IPv6 addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Final

import pytest

from harness.model.plan import ATTACKER, FAMILIES, HOST, Family
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener, Transport
from harness.testbench.scene import LOOPBACKS, Scene
from suites.ports.published import (
    CHOSEN,
    INSIDE,
    OWN,
    both,
    dual,
    has_taps,
    home,
    inner_family,
    published_on,
    ranged,
)

FIRST: Final = 8120
COUNT: Final = 4


@pytest.fixture(scope="module")
def range_ports(ports_scene: Scene, family: Family) -> Iterator[Container]:
    """Start a container that publishes a range of ports and has an automatic host port."""
    ports = ranged(FIRST, COUNT)
    yield ports_scene.container("stalls", home(ports_scene.runtime, family), ports=ports)
    ports_scene.remove("stalls")


@requirement("PUB-12")
def test_published_range_maps_ports_one_to_one(
    ports_scene: Scene, transport: Transport, family: Family, range_ports: Container
) -> None:
    """Each host port of a published range leads to the container port at the same position."""
    address, attacker = ports_scene.world.address(HOST, family), ports_scene.netns(ATTACKER)
    family_inside = inner_family(ports_scene.runtime, family)
    for number in range(COUNT):
        with Listener(
            range_ports.net, transport, family=family_inside, port=INSIDE + number
        ) as listener:
            assert listener.reached_from(attacker, at=address, port=FIRST + number, answered=True)
            others = [FIRST + other for other in range(COUNT) if other != number]
            calls = [(attacker, address, port) for port in others]
            assert listener.delivered(calls, ports_scene.settle) == []


@requirement("PUB-12")
def test_ports_before_and_after_published_range_are_closed(
    ports_scene: Scene, transport: Transport, family: Family, range_ports: Container
) -> None:
    """The host ports just before and just after a published range are closed."""
    address, attacker = ports_scene.world.address(HOST, family), ports_scene.netns(ATTACKER)
    family_inside = inner_family(ports_scene.runtime, family)
    for number in range(-1, COUNT + 1):
        with Listener(
            range_ports.net, transport, family=family_inside, port=INSIDE + number
        ) as listener:
            outside = [(attacker, address, port) for port in (FIRST - 1, FIRST + COUNT)]
            assert listener.delivered(outside, ports_scene.settle) == []
            if 0 <= number < COUNT:
                assert listener.reached_from(
                    attacker, at=address, port=FIRST + number, answered=True
                )


@requirement("PUB-12")
def test_published_range_is_reported_completely(family: Family, range_ports: Container) -> None:
    """The runtime reports every port of a published range, one by one or as a range."""
    for transport in TRANSPORTS:
        reported = {
            (item.host_port + number, item.container_port + number)
            for item in range_ports.facts().ports
            for number in range(item.count)
            if item.protocol == transport and item.container_port != CHOSEN
        }
        assert reported == {(FIRST + number, INSIDE + number) for number in range(COUNT)}


@requirement("PUB-12")
def test_automatic_host_port_is_reported_and_answers(
    ports_scene: Scene, transport: Transport, family: Family, range_ports: Container
) -> None:
    """The runtime reports the host port that it chooses, and this port answers in each family."""
    (port,) = {
        item.host_port
        for item in range_ports.facts().ports
        if (item.protocol, item.container_port) == (transport, CHOSEN)
    }
    for each in FAMILIES if family == 6 or has_taps(ports_scene.runtime) else (family,):
        family_inside = inner_family(ports_scene.runtime, each)
        with Listener(range_ports.net, transport, family=family_inside, port=CHOSEN) as listener:
            at = ports_scene.world.address(HOST, each)
            assert listener.reached_from(
                ports_scene.netns(ATTACKER), at=at, port=port, answered=True
            )
            assert listener.reached_from(
                ports_scene.netns(HOST), at=LOOPBACKS[each], port=port, answered=True
            )


@requirement("PUB-12")
@pytest.mark.parametrize("where", ["loopback", "host"])
def test_port_published_on_ipv6_address_answers_there(scene: Scene, where: str) -> None:
    """A port published on an IPv6 address answers there and is reported as requested."""
    address = IPv6Address("::1") if where == "loopback" else scene.world.address(HOST, 6)
    web = scene.container("web", dual(scene), ports=both(OWN, at=address))
    scene.ready()
    for published in published_on(web, scene, 6):
        assert published.serves(HOST, address)
    reported = {(item.host_ip, item.host_port, item.protocol) for item in web.facts().ports}
    assert reported == {(address, OWN, transport) for transport in TRANSPORTS}
