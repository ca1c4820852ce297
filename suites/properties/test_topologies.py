"""Random topologies of networks and containers, whose reachability must be as promised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import Plan
from harness.plugin.marks import requirement
from harness.testbench.profiles import replayable
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import LeakGuard
from suites.properties.conftest import Telling

if TYPE_CHECKING:
    import hypothesis


@pytest.mark.long
@pytest.mark.timeout(0)  # the profile limits the duration, and every step has a bound
@requirement("BR-4", "NET-2", "LIFE-1")
def test_any_topology_keeps_its_promises(
    world: World,
    runtime: Adapter,
    guard: LeakGuard,
    *,
    profile: hypothesis.settings,
    plans_folder: Path,
    steps: Telling,
) -> None:
    """In a random topology, observed and promised reachability are equal.

    The networks are of every kind. Containers are in every mode, and on one or several networks.
    Their removal leaves nothing.
    """
    # Imported here, so that collection does not wait for hypothesis.
    from hypothesis import given

    from harness.testbench.strategies import plans

    last = Plan()

    @profile
    @given(plan=plans(features={str(item) for item in runtime.features}))
    def holds(plan: Plan) -> None:
        nonlocal last
        last = plan
        progress.example()
        with guard.holding(), Scene(world, runtime, plan) as scene:
            assert scene.observed() == scene.promised()

    with steps("any topology") as progress, replayable(lambda: last, plans_folder, "any-topology"):
        holds()
