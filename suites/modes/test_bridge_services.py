"""Mode bridge, service by service: nothing on the way minds which port is called."""

from __future__ import annotations

from typing import Final

import pytest

from harness.cast import CONTAINER01, CONTAINER02
from harness.marks import requirement
from harness.model import GATEWAY, HOST, INTERNET, NS1, Cell, Family, Protocol
from harness.scene import Scene
from harness.traffic import TRANSPORTS, Ear, Transport
from harness.world.answers import TCP_PORTS, UDP_PORTS

PORTS: Final = (1, 22, 25, 53, 80, 111, 123, 137, 443, 445, 853, 2375, 3306, 4789, 8080, 65535)
"""The first and the last of all, and those that firewalls, proxies and resolvers like to take."""
TARGETS: Final = [
    pytest.param(CONTAINER02, marks=requirement("BR-4")),
    pytest.param(GATEWAY, marks=requirement("BR-5")),
    pytest.param(HOST, marks=requirement("BR-5")),
    pytest.param(NS1, marks=requirement("BR-6")),
    pytest.param(INTERNET, marks=requirement("BR-7")),
]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", TARGETS)
def test_whoever_is_called_answers_on_every_port(
    cast: Scene, target: str, transport: Transport
) -> None:
    """And is the one that hears the call: no port is closed, or somebody else's, on the way."""
    every_port_answers(cast, CONTAINER01, target, transport, 4)


@requirement("V6-1")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", ["b", GATEWAY, HOST, NS1, INTERNET])
def test_so_it_is_over_ipv6(dual: Scene, target: str, transport: Transport) -> None:
    """On a network with both families."""
    every_port_answers(dual, "a", target, transport, 6)


def every_port_answers(
    scene: Scene, caller: str, target: str, transport: Transport, family: Family
) -> None:
    """A listener hears the caller on each port that neither world nor runtime serves itself."""
    place = scene.place(HOST if target == GATEWAY else target)
    address = scene.address(Cell(caller, target, Protocol.ICMP, family))
    assert address
    served: set[int] = set()
    if target == INTERNET:
        served |= set((TCP_PORTS if transport == "tcp" else UDP_PORTS).values())
    elif target == GATEWAY:
        served |= set(scene.runtime.dialect.gateway_ports)
    for port in sorted(set(PORTS) - served):
        with Ear(place, transport, address=address, port=port) as ear:
            meeting = ear.hears(scene.place(caller), answered=True)
            assert meeting, f"{target} is called on port {port}"
