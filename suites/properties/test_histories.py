"""Random sequences of steps on a runtime; all promises are checked after each step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.adapters.protocol import Adapter
from harness.plugin.marks import requirement
from harness.testbench.profiles import replayable
from harness.world.build import World
from harness.world.leak_guard import LeakGuard
from suites.properties.conftest import Telling

if TYPE_CHECKING:
    import hypothesis


@pytest.mark.long
@pytest.mark.timeout(0)  # the profile limits the duration, and every step has a bound
@requirement("LIFE-1", "LIFE-7", "NET-2", "NET-3", "BR-10", "BR-11", "BYS-1", "BYS-3", "PUB-1")
def test_any_history_keeps_every_promise(
    world: World,
    runtime: Adapter,
    guard: LeakGuard,
    *,
    profile: hypothesis.settings,
    plans_folder: Path,
    steps: Telling,
) -> None:
    """After each step of a random history, observed and promised reachability are equal.

    The steps are create, connect, publish, restart, kill, remove and a firewall flush. Addresses
    and MACs are unique, bystanders are unchanged, and nothing is left at the end.
    """
    # Imported here, so that collection does not wait for hypothesis.
    from hypothesis.stateful import run_state_machine_as_test

    from suites.properties.state_machine import History, HistoryStage

    with steps("any history", steps=True) as progress:
        stage = HistoryStage(world, runtime, guard, progress)
        with replayable(lambda: stage.last, plans_folder, "any-history"):
            run_state_machine_as_test(partial(History, stage), settings=profile)  # type: ignore[arg-type] # it accepts a callable
