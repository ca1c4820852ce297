"""Mode bridge: the host intercepts and blocks no port of a container or its targets."""

from __future__ import annotations

import pytest

from harness.model.plan import GATEWAY, HOST, INTERNET, NS1
from harness.plugin.marks import requirement
from harness.testbench.listener import TRANSPORTS, Transport
from suites.modes.conftest import BridgeNetwork, in_each_family
from suites.support.packet_kinds import every_port_answers


@in_each_family
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("peer", marks=requirement("BR-4")),
        pytest.param(GATEWAY, marks=requirement("BR-5")),
        pytest.param(HOST, marks=requirement("BR-5")),
        pytest.param(NS1, marks=requirement("BR-6")),
        pytest.param(INTERNET, marks=requirement("BR-7")),
    ],
)
def test_target_answers_bridged_container_on_every_port(
    network: BridgeNetwork, target: str, transport: Transport
) -> None:
    """A listener on any port of the target receives a bridged container's connection."""
    source, peer = network.containers[:2]
    called = peer if target == "peer" else target
    every_port_answers(network.scene, source, called, transport, network.family)


@requirement("BR-27")
@in_each_family
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bridged_container_answers_the_host_on_every_port(
    network: BridgeNetwork, transport: Transport
) -> None:
    """A listener on any port of a bridged container receives the host's connection."""
    every_port_answers(network.scene, HOST, network.containers[0], transport, network.family)
