"""mydocker is killed half-way: the next call puts everything in order.

The kill comes at a named step: a function of mydocker's is replaced, in a forked
process, by one that kills the process before or after its work.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import container, lifecycle, state
from runtime.engine import Engine
from runtime.errors import ConflictError, NotFoundError
from runtime.net import bridge, nat, networks
from tests.runtime.conftest import FOR_EVER
from tests.runtime.looks import links, nothing_left, processes, until

Step = tuple[Any, str, bool]


def _killed_at(step: Step, work: Callable[[], object]) -> None:
    """Do the work in a process that is killed when it comes to the step."""
    owner, name, after = step
    pid = os.fork()
    if not pid:
        original = getattr(owner, name)

        def deadly(*args: Any, **kwargs: Any) -> Any:
            if after:
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, deadly)
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _steps(*steps: tuple[Any, str]) -> dict[str, Step]:
    return {
        f"{'after' if after else 'before'} {name}": (owner, name, after)
        for owner, name in steps
        for after in (False, True)
    }


STARTING = _steps(
    (state.Lock, "take"),
    (state.Store, "create"),
    (state.Store, "write_state"),
    (lifecycle.Lifecycle, "start"),
    (container, "rootfs"),
    (networks.Networks, "take"),
    (bridge, "attach"),
    (bridge, "_wait_until_forwarding"),
    (container.Report, "pid"),
    (container.Report, "end"),
    (container, "collect"),
)


@pytest.mark.parametrize("step", STARTING.values(), ids=list(STARTING))
def test_a_start_is_killed(engine: Engine, root: Path, step: Step) -> None:
    """Whatever is still listed can be started or removed; then nothing is left of it."""
    engine.run("base", FOR_EVER, name="first")
    with nothing_left(root):
        _killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web"))
        until(lambda: not _in_limbo(engine), "its child has let go of the lock too")
        for item in [item for item in engine.containers() if item.name == "web"]:
            assert item.state.status in ("created", "running")
            assert engine.start(item.id).state.endpoints[0].address == "172.17.0.2/16"
            engine.remove(item.id, force=True)
        # The name is free, whether or not there was anything to remove.
        engine.run("base", FOR_EVER, name="web")
        engine.remove("web", force=True)


def _in_limbo(engine: Engine) -> bool:
    return any(item.state.status in ("starting", "removing") for item in engine.containers())


ENDING = _steps(
    (container, "end"),
    (bridge, "detach"),
    (networks.Networks, "release"),
    (lifecycle.Lifecycle, "_release"),
    (state.Store, "write_state"),
    (state.Store, "delete"),
)


@pytest.mark.parametrize("step", ENDING.values(), ids=list(ENDING))
def test_a_removal_is_killed(engine: Engine, root: Path, step: Step) -> None:
    """The next call finishes it, or finds the container as it was; then it can be removed."""
    engine.run("base", FOR_EVER, name="first")
    with nothing_left(root):
        web = engine.run("base", FOR_EVER, name="web")
        _killed_at(step, lambda: Engine(root).remove("web", force=True))
        engine.containers()
        try:
            engine.remove("web", force=True)
        except NotFoundError:
            assert web.id not in os.listdir(root / "containers")
        assert web.state.endpoints[0].veth not in links()


NETWORK = _steps(
    (networks.Networks, "_make"),
    (bridge, "make"),
    (nat, "apply"),
    (bridge, "_set_ipv6"),
)


@pytest.mark.parametrize("step", NETWORK.values(), ids=list(NETWORK))
def test_making_a_network_is_killed(engine: Engine, root: Path, step: Step) -> None:
    """The name, the subnet and the bridge are free for the next who asks."""
    engine.network_inspect("bridge")
    with nothing_left(root):
        _killed_at(step, lambda: Engine(root).network_create("lan", subnet="10.9.0.0/24"))
        try:
            made = engine.network_create("lan", subnet="10.9.0.0/24")
        except ConflictError:
            made = engine.network_inspect("lan")  # it was complete
        assert made.bridge in links()
        engine.run("base", FOR_EVER, name="web", network="lan")
        engine.remove("web", force=True)
        engine.network_remove("lan")


REMOVING = _steps((nat, "apply"), (bridge, "remove"))


@pytest.mark.parametrize("step", REMOVING.values(), ids=list(REMOVING))
def test_removing_a_network_is_killed(engine: Engine, root: Path, step: Step) -> None:
    """It is still there and can be removed, or it is gone."""
    engine.network_inspect("bridge")
    with nothing_left(root):
        engine.network_create("lan")
        _killed_at(step, lambda: Engine(root).network_remove("lan"))
        engine.network_remove("lan")


def test_a_container_never_runs_half_connected(engine: Engine, root: Path) -> None:
    """Its pid 1 leaves when the starter dies before the network is in place."""
    engine.run("base", FOR_EVER, name="first")
    before = processes()
    step = (container.Report, "pid", True)
    _killed_at(step, lambda: Engine(root).run("base", FOR_EVER, name="web"))
    until(lambda: processes() <= before, "pid 1 has left by itself")
