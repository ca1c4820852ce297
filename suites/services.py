"""Ports that something on the way may mind: who is called there must be the one that hears it."""

from __future__ import annotations

import secrets
from typing import Final

from harness.model.plan import GATEWAY, HOST, INTERNET, Cell, Family, Protocol
from harness.testbench.listener import Ear, Transport
from harness.testbench.scene import Scene
from harness.world.service_protocols import TCP_PORTS, UDP_PORTS

SERVICES: Final = (
    *(1, 22, 25, 53, 80, 111, 123, 137, 443, 445, 853, 2375, 3306, 4789),
    *(5432, 6379, 8080, 9200, 27017, 65535),
)
"""The first and the last of all, and those that firewalls, proxies and resolvers like to take."""
_ANY: Final = range(1024, 20000)
"""Where nobody finds a port for who asks for none."""


def every_port_answers(
    scene: Scene, caller: str, target: str, transport: Transport, family: Family
) -> None:
    """A listener hears the caller on each port that neither world nor runtime serves itself.

    And on one more, drawn each time: nobody can know all that are called.
    """
    place = scene.place(HOST if target == GATEWAY else target)
    address = scene.address(Cell(caller, target, Protocol.ICMP, family))
    assert address
    served: set[int] = set()
    if target == INTERNET:
        served |= set((TCP_PORTS if transport == "tcp" else UDP_PORTS).values())
    elif target == GATEWAY:
        served |= set(scene.runtime.dialect.gateway_ports)
    for port in sorted({*SERVICES, secrets.choice(_ANY)} - served):
        with Ear(place, transport, address=address, port=port) as ear:
            meeting = ear.hears(scene.place(caller), answered=True)
            assert meeting, f"{target} is called on port {port}"
