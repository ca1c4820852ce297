"""Tests of mydocker calls that are killed half-way: the next call repairs the state.

The kill comes at a named step. A forked process replaces a function of mydocker by one that kills
the process before or after the function's work.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from linux.nftables import Nft
from runtime import store
from runtime.container import lifecycle, start
from runtime.engine import Engine
from runtime.errors import ConflictError, NotFoundError
from runtime.init import status_pipe
from runtime.network import bridge, endpoint, manager
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import family, links, nothing_left, until
from tests.runtime.support.killing import Step, killed_at, steps

STARTING = steps(
    (store.Lock, "take"),
    (store.Store, "create"),
    (store.Store, "write_state"),
    (lifecycle.Lifecycle, "start"),
    (start, "rootfs"),
    (manager.Networks, "take"),
    (endpoint, "attach"),
    (bridge, "wait_until_forwarding"),
    (status_pipe.InitReport, "pid"),
    (status_pipe.InitReport, "end"),
    (start, "collect"),
)


@pytest.mark.parametrize("step", STARTING.values(), ids=list(STARTING))
def test_container_of_a_killed_start_can_be_removed(engine: Engine, root: Path, step: Step) -> None:
    """A container whose start was killed can be started or removed.

    After the removal nothing is left.
    """
    engine.run("base", FOR_EVER, name="first")
    with nothing_left(root):
        killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web"))
        until(lambda: not _is_half_done(engine), "the killed start's child has ended")
        for item in [item for item in engine.containers() if item.name == "web"]:
            assert item.state.status in ("created", "running")
            assert engine.start(item.id).state.endpoints[0].address == "172.17.0.2/16"
            engine.remove(item.id, force=True)
        # The name is free, whether or not a container was left to remove.
        engine.run("base", FOR_EVER, name="web")
        engine.remove("web", force=True)


def _is_half_done(engine: Engine) -> bool:
    return any(item.state.status in ("starting", "removing") for item in engine.containers())


ENDING = steps(
    (start, "end"),
    (endpoint, "detach"),
    (manager.Networks, "release"),
    (lifecycle.Lifecycle, "_release"),
    (store.Store, "write_state"),
    (store.Store, "delete"),
    (store, "remove_tree"),
    (store, "_remove_one"),
)


@pytest.mark.parametrize("step", ENDING.values(), ids=list(ENDING))
def test_killed_removal_is_finished_or_undone(engine: Engine, root: Path, step: Step) -> None:
    """The next mydocker call finishes a killed removal, or the container can still be removed.

    In the second case the container is unchanged.
    """
    engine.run("base", FOR_EVER, name="first")
    with nothing_left(root):
        web = engine.run("base", FOR_EVER, name="web")
        killed_at(step, lambda: Engine(root).remove("web", force=True))
        assert not _is_half_done(engine)
        try:
            engine.remove("web", force=True)
        except NotFoundError:
            assert web.id not in os.listdir(root / "containers")
        assert web.state.endpoints[0].veth not in links()


NETWORK = steps(
    (manager.Networks, "_make"),
    (bridge, "make"),
    (Nft, "apply"),
    (bridge, "set_ipv6"),
)


@pytest.mark.parametrize("step", NETWORK.values(), ids=list(NETWORK))
def test_network_can_be_created_after_a_killed_creation(
    engine: Engine, root: Path, step: Step
) -> None:
    """After a killed network creation the name, the subnet and the bridge are free."""
    engine.network_inspect("bridge")
    with nothing_left(root):
        killed_at(step, lambda: Engine(root).network_create("lan", subnet="10.9.0.0/24"))
        try:
            made = engine.network_create("lan", subnet="10.9.0.0/24")
        except ConflictError:
            made = engine.network_inspect("lan")  # the network was complete
        assert made.bridge in links()
        engine.run("base", FOR_EVER, name="web", network="lan")
        engine.remove("web", force=True)
        engine.network_remove("lan")


REMOVING = steps((Nft, "apply"), (bridge, "remove"))


@pytest.mark.parametrize("step", REMOVING.values(), ids=list(REMOVING))
def test_network_can_be_removed_after_a_killed_removal(
    engine: Engine, root: Path, step: Step
) -> None:
    """After a killed network removal the network is gone, or can still be removed."""
    engine.network_inspect("bridge")
    with nothing_left(root):
        engine.network_create("lan")
        killed_at(step, lambda: Engine(root).network_remove("lan"))
        engine.network_remove("lan")


def test_pid_1_exits_if_its_start_is_killed(engine: Engine, root: Path) -> None:
    """Pid 1 exits if the starting call dies before the network is set up."""
    engine.run("base", FOR_EVER, name="first")
    before = family(root)
    step = (status_pipe.InitReport, "pid", True)
    killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web"))
    until(lambda: family(root) <= before, "pid 1 has exited")
