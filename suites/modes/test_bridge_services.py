"""Mode bridge, service by service: nothing on the way minds which port is called."""

from __future__ import annotations

from typing import Final

import pytest

from harness.model.plan import CONTAINER01, CONTAINER02, GATEWAY, HOST, INTERNET, NS1
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Transport
from harness.testbench.scene import Scene
from suites.support.packet_kinds import every_port_answers

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


@requirement("BR-27")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_container_answers_the_host_on_every_port(cast: Scene, transport: Transport) -> None:
    """Called by the host at its own address."""
    every_port_answers(cast, HOST, CONTAINER01, transport, 4)


@requirement("V6-1", "BR-27")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_so_it_does_over_ipv6(dual: Scene, transport: Transport) -> None:
    """On a network with both families."""
    every_port_answers(dual, HOST, "a", transport, 6)


@requirement("V6-1")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("target", ["b", GATEWAY, HOST, NS1, INTERNET])
def test_so_it_is_over_ipv6(dual: Scene, target: str, transport: Transport) -> None:
    """On a network with both families."""
    every_port_answers(dual, "a", target, transport, 6)
