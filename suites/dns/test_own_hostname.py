"""A container's own hostname, which must resolve to the container's own address."""

from __future__ import annotations

import pytest

from harness.model.plan import HOST, Bridge
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.scene import Scene
from suites.support.dns import assert_hostname_is_own, held, looked_up


@requirement("DNS-2")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain", id="bridge"),
        pytest.param("guest", id="container", marks=requirement("CTR-1")),
        pytest.param("web", id="user-defined", marks=requirement("NET-4")),
        pytest.param("lodger", id="container-on-user-defined", marks=requirement("NET-4", "CTR-1")),
        pytest.param("both", id="on-two-networks", marks=requirement("NET-3")),
        pytest.param("inner", id="internal", marks=requirement("INT-3")),
    ],
)
def test_own_hostname_resolves_to_own_address(dns_scene: Scene, name: str) -> None:
    """A container resolves its own hostname to its own addresses only, in each family."""
    assert held(dns_scene, name, 4)
    assert_hostname_is_own(dns_scene, name)


@requirement("DNS-2", "HOST-4")
def test_own_hostname_in_host_mode_resolves_to_the_host(dns_scene: Scene) -> None:
    """The hostname of a host-mode container resolves to the host's addresses or its loopback."""
    called = lookup.hostname(dns_scene.world.host, dns_scene["house"])
    found = looked_up(dns_scene, "house", called, 4).addresses
    assert found
    others = {address for address in found if not address.is_loopback}
    assert others <= {item.ip for item in dns_scene.netns(HOST).interfaces()}


@requirement("DNS-2")
def test_requested_hostname_resolves_inside_to_own_address(scene: Scene) -> None:
    """A container resolves a requested hostname that differs from its name to its own address."""
    scene.container("named", hostname="front-desk")
    assert lookup.hostname(scene.world.host, scene["named"]) == "front-desk"
    assert_hostname_is_own(scene, "named")


@requirement("DNS-2", "LIFE-7")
def test_own_hostname_resolves_to_current_address_after_restart(scene: Scene) -> None:
    """A restarted container's own hostname resolves to its current address only."""
    scene.containers(again=Bridge())
    assert_hostname_is_own(scene, "again")
    scene["again"].stop()
    scene.containers(newcomer=Bridge())
    scene["again"].start()
    assert_hostname_is_own(scene, "again")
    assert not held(scene, "again", 4) & held(scene, "newcomer", 4)


@requirement("DNS-2", "NET-3")
def test_own_hostname_follows_connect_and_disconnect(scene: Scene) -> None:
    """A container's own hostname resolves to its new address after it moves to another network."""
    for network in ("town", "village"):
        scene.network(network)
    scene.container("mover", Bridge("town"))
    first = held(scene, "mover", 4)
    scene.connect("mover", "village")
    assert_hostname_is_own(scene, "mover")
    scene.disconnect("mover", "town")
    assert not held(scene, "mover", 4) & first
    assert_hostname_is_own(scene, "mover")
