"""Names inside who joined a container, and inside whom he joined, when one of them changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.marks import requirement
from harness.model import DEFAULT_NETWORK, Bridge, Joined
from harness.scene import Scene
from harness.topology import pick
from suites.claimed import families, has_ipv6
from suites.names import held, resolved, unheard_of


def stopped(scene: Scene, name: str) -> None:
    """Have a container stop."""
    scene[name].stop()


@requirement("CTR-9", "NET-4")
@pytest.mark.parametrize("end", [Scene.remove, stopped], ids=["removed", "stopped"])
def test_the_end_of_the_joiner_leaves_the_names_of_the_joined(
    scene: Scene, end: Callable[[Scene, str], None]
) -> None:
    """On a network of one's own peers know it by name, and it knows them, as before."""
    own = Bridge(scene.network("town", ipv6=has_ipv6(scene.runtime)).name)
    scene.containers(home=own, beside=own, joiner=Joined("home"))
    end(scene, "joiner")
    for family in families(scene.runtime):
        assert resolved(scene, "home", "beside", family) == held(scene, "beside", family)
        assert resolved(scene, "beside", "home", family) == held(scene, "home", family)


@requirement("DNS-1", "CTR-1", "NET-3")
def test_the_joiners_resolver_is_that_of_the_network_that_the_joined_is_on_now(
    scene: Scene,
) -> None:
    """Taken to the default network, names outside are answered in both of them."""
    scene.network("town")
    scene.containers(home=Bridge("town"), joiner=Joined("home"))
    scene.connect("home", DEFAULT_NETWORK)
    scene.disconnect("home", "town")
    address = pick(scene.world.topology.internet, 4).ip
    for asker in ("home", "joiner"):
        assert resolved(scene, asker, unheard_of(), 4) == {address}
