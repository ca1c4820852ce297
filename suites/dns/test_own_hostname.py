"""A container's own name leads to its own address, wherever it is and whatever happens to it."""

from __future__ import annotations

import pytest

from harness.model.plan import HOST, Bridge
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.scene import Scene
from suites.support.dns import held, leads_to_itself, looked_up


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
def test_what_it_calls_itself_leads_to_itself(town: Scene, name: str) -> None:
    """In each family in which it has an address, and to nobody else's."""
    assert held(town, name, 4)
    leads_to_itself(town, name)


@requirement("DNS-2", "HOST-4")
def test_on_the_hosts_network_its_name_leads_to_the_host(town: Scene) -> None:
    """To one of the host's addresses, be it on its loopback."""
    called = lookup.hostname(town.world.host, town["house"])
    found = looked_up(town, "house", called, 4).addresses
    assert found
    others = {address for address in found if not address.is_loopback}
    assert others <= {item.ip for item in town.place(HOST).interfaces()}


@requirement("DNS-2")
def test_a_name_that_was_asked_for_leads_to_itself(scene: Scene) -> None:
    """A hostname of its own, whatever the container is called."""
    scene.container("named", hostname="front-desk")
    assert lookup.hostname(scene.world.host, scene["named"]) == "front-desk"
    leads_to_itself(scene, "named")


@requirement("DNS-2", "LIFE-7")
def test_started_again_it_leads_to_the_address_that_it_has_now(scene: Scene) -> None:
    """Be it another than before."""
    scene.containers(again=Bridge())
    leads_to_itself(scene, "again")
    scene["again"].stop()
    scene.containers(newcomer=Bridge())
    scene["again"].start()
    leads_to_itself(scene, "again")
    assert not held(scene, "again", 4) & held(scene, "newcomer", 4)


@requirement("DNS-2", "NET-3")
def test_it_follows_its_connections(scene: Scene) -> None:
    """While it runs it is taken from one network to another."""
    for network in ("town", "village"):
        scene.network(network)
    scene.container("mover", Bridge("town"))
    first = held(scene, "mover", 4)
    scene.connect("mover", "village")
    leads_to_itself(scene, "mover")
    scene.disconnect("mover", "town")
    assert not held(scene, "mover", 4) & first
    leads_to_itself(scene, "mover")
