"""Name resolution in containers that join the netns of another container (`container:ID`)."""

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
from suites.support.dns import assert_hostname_is_own, fresh_name, held, resolved
from suites.support.features import families, has_ipv6, restarts

IN_TURN = ("home", "joiner", "third")
"""Each container joins the one before it."""


@pytest.fixture(scope="module")
def joined_chain(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share the containers of `IN_TURN`, each of which joins the one before it.

    The first container has moved from a user-defined network to the default one. The last container
    is restarted after the move, where the runtime can restart.
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
    """Stop a container."""
    scene[name].stop()


@requirement("CTR-9", "NET-4")
@pytest.mark.parametrize("end", [Scene.remove, stopped], ids=["removed", "stopped"])
def test_names_of_joined_container_survive_end_of_joining_container(
    scene: Scene, end: Callable[[Scene, str], None]
) -> None:
    """The joined container's name still resolves after the joining container ends.

    On a user-defined network, the joined container and its peer resolve each other's names.
    """
    own = Bridge(scene.network("town", ipv6=has_ipv6(scene.runtime)).name)
    scene.containers(home=own, beside=own, joiner=Joined("home"))
    end(scene, "joiner")
    for family in families(scene.runtime):
        assert resolved(scene, "home", "beside", family) == held(scene, "beside", family)
        assert resolved(scene, "beside", "home", family) == held(scene, "home", family)


@requirement("DNS-1", "CTR-1", "NET-3")
def test_joining_container_resolves_names_after_joined_container_moves(
    joined_chain: Scene,
) -> None:
    """A joining container resolves names after the joined container moves to another network."""
    address = pick(joined_chain.world.topology.internet, 4).ip
    for asker in IN_TURN:
        assert resolved(joined_chain, asker, fresh_name(), 4) == {address}


@requirement("DNS-2", "CTR-1", "NET-3")
def test_hostname_of_joining_container_resolves_to_current_address(joined_chain: Scene) -> None:
    """Hostnames of joined and joining containers resolve to the current address after a move.

    The joined container has moved to another network.
    """
    for name in IN_TURN:
        assert_hostname_is_own(joined_chain, name)
