"""The runtime after SIGKILL: its next start cleans up, and running containers continue.

Each test has a separate world, so that an incomplete clean-up disturbs no other test.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from harness.adapters.protocol import Adapter, RuntimeRefused
from harness.model.features import Feature
from harness.model.plan import (
    ATTACKER,
    DEFAULT_NETWORK,
    HOST,
    Bridge,
    ContainerSpec,
    Family,
    Publish,
)
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench.listener import Listener
from harness.testbench.netns_view import until
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import guarded
from suites.ports.published import inner_family
from suites.support.dns import held, resolved
from suites.support.features import families, lan

PUBLISHED, PORT = 8196, 31074
MOMENTS = (0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
"""Moments at which the runtime is killed, as fractions of the duration of a start."""


@pytest.fixture
def scene(start_runtime: RuntimeStarter) -> Iterator[Scene]:
    """Build an empty scene in a separate world."""
    with World.build() as world, start_runtime(world) as runtime, Scene(world, runtime) as made:
        yield made


@pytest.mark.long
@pytest.mark.timeout(300)  # forty commands, each with a bound, on a busy machine
@requirement("LIFE-6")
def test_killed_start_is_cleaned_up_by_next_runtime_start(scene: Scene) -> None:
    """A container's start during which the runtime is killed is completed or undone later.

    The runtime does this when it is started again. The kill is tried at several moments. Where
    possible the network has only one free address, which another container must get afterwards.
    Running containers keep their network as declared.
    """
    host, runtime = scene.netns(HOST), scene.runtime
    mode = _small(scene) if Feature.NETWORKS in runtime.features else Bridge()
    victim, heir = (ContainerSpec(name, mode) for name in ("victim", "heir"))
    scene.container("stays", Bridge())
    _seconds_of_a_start(runtime, heir)  # a bridge gets its fe80:: address with its first port
    whole = _seconds_of_a_start(runtime, heir)
    with guarded(scene.world, runtime.dialect) as different:
        for moment in MOMENTS:
            runtime.crash(victim, after=moment * whole)
            runtime.start()
            until(
                host,
                lambda: _running(runtime, victim.name) or not different(),
                f"the start that was killed after {moment:.0%} is undone or completed",
            )
            if _running(runtime, victim.name) or runtime.dialect.restart_address == "kept":
                _remove(runtime, victim.name)
            runtime.run(heir)
            runtime.remove(heir.name)
            _remove(runtime, victim.name)
            with contextlib.suppress(TimeoutError):  # the next assertion shows the leftovers
                until(host, lambda: not different(), "no state of victim and heir is left")
            assert different() == []
            if runtime.dialect.crash == "keeps-network":
                assert scene.observed() == scene.promised()


@pytest.mark.timeout(300)  # many commands, each with a bound
@requirement("LIFE-6")
def test_running_containers_survive_runtime_crash_as_declared(scene: Scene) -> None:
    """Running containers survive a kill of the runtime, or all of them stop, as declared.

    Containers that survive keep their network, published ports and names. If a container can only
    be inspected by exec, and exec needs the runtime, it is inspected after the runtime's next
    start.
    """
    runtime = scene.runtime
    own = lan(scene)
    ports = (Publish(PUBLISHED, PORT),) if Feature.PUBLISH in runtime.features else ()
    others = tuple(replace(port, host_port=PUBLISHED + 1) for port in ports)
    scene.container("a", own, ports=others)
    scene.containers(b=own)
    scene.container("c", Bridge(), ports=ports)
    if Feature.CONNECT in runtime.features:
        scene.connect("b", DEFAULT_NETWORK)
    pids = [scene[name].facts().pid for name in "abc"]
    runtime.crash(ContainerSpec("victim", own), after=0)
    if runtime.dialect.crash == "keeps-network" and _can_be_asked(scene):
        assert scene.observed() == scene.promised()
    runtime.start()
    _remove(runtime, "victim")
    if runtime.dialect.crash == "keeps-network":
        assert [scene[name].facts().pid for name in "abc"] == pids
        assert scene.observed() == scene.promised()
        if ports:
            assert_answer(scene, "c", PUBLISHED, (4,))
            assert_answer(scene, "a", PUBLISHED + 1, families(runtime))
        if Feature.DNS in runtime.features and own != Bridge():
            assert resolved(scene, "a", "b", 4) == held(scene, "b", 4, own.network)
    else:
        assert not any(scene[name].facts().running for name in "abc")


def assert_answer(scene: Scene, name: str, port: int, those: Iterable[Family]) -> None:
    """Assert that an outsider reaches a container by its published port in each given family."""
    for family in those:
        with Listener(
            scene[name].net, "tcp", family=inner_family(scene.runtime, family), port=PORT
        ) as listener:
            at = scene.world.address(HOST, family)
            assert listener.reached_from(scene.netns(ATTACKER), at=at, port=port, answered=True)


def _can_be_asked(scene: Scene) -> bool:
    """Return True if containers can be inspected while the runtime is down."""
    by_exec = scene["a"].own_stack or scene.world.probe == "exec"
    return not by_exec or scene.runtime.dialect.execs == "go-on"


def _small(scene: Scene) -> Bridge:
    return Bridge(scene.network("small", subnet=IPv4Network("172.30.9.0/30")).name)


def _seconds_of_a_start(runtime: Adapter, spec: ContainerSpec) -> float:
    """Return how many seconds the start of a container takes; remove the container."""
    began = time.monotonic()
    runtime.run(spec)
    seconds = time.monotonic() - began
    runtime.remove(spec.name)
    return seconds


def _remove(runtime: Adapter, name: str) -> None:
    """Remove a container, if it exists."""
    with contextlib.suppress(RuntimeRefused):
        runtime.remove(name)


def _running(runtime: Adapter, name: str) -> bool:
    try:
        return runtime.inspect(name).running
    except RuntimeRefused:
        return False
