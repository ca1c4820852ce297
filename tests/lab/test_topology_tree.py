"""Tests of the lab's drawing of the topology, which is complete and readable."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest
from rich.console import Console

from harness.adapters.protocol import NetworkInfo
from harness.lab.topology_tree import ContainerView, draw
from harness.model.plan import Bridge, Host, Joined, Nothing
from harness.model.topology import Topology

BRIDGE = NetworkInfo("bridge", "0", "docker0", (IPv4Interface("172.17.42.1/16"),))
CONTAINERS = (
    ContainerView("container01", Bridge(), (IPv4Interface("172.17.0.1/16"),)),
    ContainerView("container03-host", Host()),
    ContainerView("container05-container", Joined("container01")),
    ContainerView("container06-none", Nothing()),
)


def drawn(
    topology: Topology, bridge: NetworkInfo | None, containers: tuple[ContainerView, ...]
) -> str:
    """Return the drawing, at most 80 columns wide."""
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(draw(topology, bridge, containers))
    return captured.get()


def test_containers_are_drawn_below_their_network() -> None:
    """A container is drawn below its bridge, the host or the container that it joined."""
    assert drawn(Topology(routers=1), BRIDGE, CONTAINERS) == (
        """\
internet 203.0.113.10, 2001:db8:1::10  www.example.com
         203.0.113.53, 2001:db8:1::53  the name server
└── r1  a router: it takes 1 from every TTL
    └── LAN 198.51.100.0/24
        ├── attacker 198.51.100.66, 2001:db8:64::66
        └── host 198.51.100.7, 2001:db8:64::7  you are here
            ├── br0 192.168.2.1/24, fd00:2::1/64
            │   ├── ns1 192.168.2.10, fd00:2::10
            │   └── ns2 192.168.2.20, fd00:2::20
            ├── docker0 172.17.42.1/16
            │   └── container01                eth0 172.17.0.1/16
            │       └── container05-container  container01's namespace
            ├── container03-host               the host's namespace
            └── container06-none               lo only, on no bridge
"""
    )


@pytest.mark.parametrize(
    ("count", "chain"),
    [(2, "r2 ── r1  2 routers"), (6, "r6 ── r5 ── r4 ── r3 ── r2 ── r1"), (30, "r30 ── … ── r1")],
)
def test_long_chain_of_routers_is_abbreviated(count: int, chain: str) -> None:
    """In the drawing of a long chain of routers, only the first and last routers are shown."""
    assert f"└── {chain}" in drawn(Topology(routers=count), None, ())


def test_runtime_without_a_bridge_is_drawn_without_bridge() -> None:
    """If the runtime has no bridge, the drawing has none."""
    page = drawn(Topology(), None, CONTAINERS[1:2])
    assert "docker0" not in page
    assert "container03-host" in page
