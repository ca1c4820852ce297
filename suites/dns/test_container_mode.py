"""Names inside who joined a container, and inside whom he joined, when one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, Joined, NetworkSpec, Plan
from harness.model.topology import pick
from harness.plugin.marks import requirement
from harness.testbench.scene import Scene
from harness.world.build import World
from suites.support.dns import held, leads_to_itself, resolved, unheard_of
from suites.support.features import families, has_ipv6, restarts

IN_TURN = ("home", "joiner", "third")
"""Each has joined the one before it."""


@pytest.fixture(scope="module")
def moved(world: World, runtime: Adapter) -> Iterator[Scene]:
    """`IN_TURN`, of whom the first was taken from a network of one's own to the default one.

    The last has been started again after that, where it can be.
    """
    home, *joining = IN_TURN
    plan = Plan(
        networks=(NetworkSpec("town"),),
        containers=(
            ContainerSpec(home, Bridge("town")),
            *(
                ContainerSpec(name, Joined(joined))
                for name, joined in zip(joining, IN_TURN, strict=False)
            ),
        ),
    )
    with Scene(world, runtime, plan) as made:
        if Feature.CONNECT in runtime.features:
            made.connect(home, DEFAULT_NETWORK)
            made.disconnect(home, "town")
        if restarts(runtime):
            made["third"].stop()
            made.start("third")
        yield made


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
    moved: Scene,
) -> None:
    """Taken to the default network, names outside are answered in all of them."""
    address = pick(moved.world.topology.internet, 4).ip
    for asker in IN_TURN:
        assert resolved(moved, asker, unheard_of(), 4) == {address}


@requirement("DNS-2", "CTR-1", "NET-3")
def test_own_names_lead_to_where_the_joined_is_now(moved: Scene) -> None:
    """Be it that of the joined one or a joiner's own, and no more to where that was before."""
    for name in IN_TURN:
        leads_to_itself(moved, name)
