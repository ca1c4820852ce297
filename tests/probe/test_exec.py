"""Tests of the exec probe, an agent in each container, which is compared with the netns probe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from harness.adapters import registry
from harness.adapters.mydocker import MydockerAdapter
from harness.faults.adapter import FaultyAdapter
from harness.faults.fault import Fault
from harness.faults.library import firewall
from harness.model.matrix import Matrix
from harness.model.plan import (
    CAST,
    CONTAINER01,
    CONTAINER02,
    HOST,
    JOINER,
    ON_HOST,
    Cell,
    Observation,
    Outcome,
    Protocol,
)
from harness.probe.remote import AgentLost
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import guarded
from harness.world.process import ExecCommand
from linux import nftables
from tests.adapters.vendors import OWN_STACK, TRIED
from tests.support.nft import add_rule

KERNELS = tuple(name for name in TRIED if name not in OWN_STACK)
"""Runtimes whose containers can be probed by netns and by exec."""
GIVEN_UP = 15.0
"""Time limit in seconds for the probe to give up, on a busy machine."""
FAULTS = (
    firewall.no_masquerade.stacked[0],  # the fault for every container, not only for connected ones
    firewall.gateway_is_deaf_to_pings,
    firewall.host_is_out_of_reach,
    firewall.internet_is_out_of_reach,
    firewall.host_cannot_reach_in,
)


@contextmanager
def acting(name: str, fault: Fault | None = None) -> Iterator[tuple[Scene, Scene]]:
    """Start the cast in a new world.

    Yield it as two scenes, one with the netns probe and one with the exec probe.
    """
    with World.build() as world:
        healthy = registry.find(name)(world.host)
        runtime = FaultyAdapter(healthy, world.host, fault) if fault else healthy
        runtime.start()
        with Scene(world, runtime, CAST, probe="exec") as by_exec:
            from_outside = Scene(world, runtime, probe="netns")
            for spec in CAST.containers:
                from_outside.adopt(spec, by_exec[spec.name].started)
            yield from_outside, by_exec
        runtime.stop()


@pytest.fixture(scope="module", params=("mydocker", *KERNELS))
def cast(request: pytest.FixtureRequest) -> Iterator[tuple[Scene, Scene]]:
    """Start the cast, once for each installed runtime."""
    with acting(request.param) as both:
        yield both


def test_exec_and_netns_probes_have_the_same_observations(cast: tuple[Scene, Scene]) -> None:
    """The exec probe and the netns probe observe the same, and all promises are kept.

    The outcome, code, TTLs and sender of every cell are equal.
    """
    from_outside, by_exec = cast
    observed = by_exec.observed()
    assert dict(observed) == dict(from_outside.observed())
    assert observed == by_exec.promised()


def test_exec_probe_runs_in_the_namespace_of_each_container(cast: tuple[Scene, Scene]) -> None:
    """The exec probe's agent runs in the netns of its container.

    A joining container has an agent of its own, in the netns of the joined container.
    """
    _, by_exec = cast
    agents = [by_exec[name].agent() for name in (CONTAINER01, JOINER)]
    assert agents[0] is not agents[1]
    assert agents[0].netns == agents[1].netns != by_exec[CONTAINER02].agent().netns
    with by_exec[ON_HOST].inside() as space:
        assert space.id == by_exec.netns(HOST).identity


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_exec_and_netns_probes_find_the_same_wrong_cells(fault: Fault) -> None:
    """For a fault, the exec probe and the netns probe find the same wrong cells."""
    with acting("mydocker", fault) as (from_outside, by_exec):
        wrong = [wrong_cells(scene.observed(), scene) for scene in (from_outside, by_exec)]
    assert wrong[0]
    assert wrong[1] == wrong[0]


def wrong_cells(observed: Matrix[Observation], scene: Scene) -> dict[str, str]:
    """Return the wrong cells and their observations."""
    promised = scene.promised()
    return {
        str(cell): str(seen) for cell, seen in observed.items() if not promised[cell].admits(seen)
    }


@pytest.fixture
def web() -> Iterator[Scene]:
    """Start one container of mydocker, with the exec probe."""
    with World.build() as world:
        runtime = registry.find("mydocker")(world.host)
        runtime.start()
        with Scene(world, runtime, probe="exec") as made:
            made.container("web")
            yield made
        runtime.stop()


def test_exec_probe_sees_syn_without_reply(web: Scene) -> None:
    """If the reply to a SYN is lost, the exec probe reports the SYN and its source.

    The agent cannot see the SYN's sequence number, so the source port identifies the source.
    """
    dropped = [nftables.l4proto("tcp"), nftables.oifname("docker0"), nftables.verdict("drop")]
    add_rule(web.world.namespaces[HOST], "output", *dropped)
    (seen,) = web.observed([Cell("web", HOST, Protocol.TCP, 4)]).values()
    assert (seen.outcome, seen.seen_from) == (Outcome.DROPPED, "web")


def test_exec_agent_ends_with_its_container(web: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exec agent has ended when its container is stopped.

    Podman sometimes refuses to clean up while an exec session is running.
    """
    first, stop = web["web"].agent(), web.runtime.stop_container
    assert web["web"].agent() is first
    gone: list[bool] = []

    def stopping(name: str) -> None:
        gone.append(first.gone)
        stop(name)

    monkeypatch.setattr(web.runtime, "stop_container", stopping)
    web["web"].stop()
    assert gone == [True]
    web["web"].start()
    again = web["web"].agent()
    assert again is not first
    web.remove("web")
    assert again.gone


def test_failed_exec_raises_instead_of_a_verdict(web: Scene) -> None:
    """If exec fails, the error has the runtime's message, and there is no matrix."""
    web.runtime.stop_container("web")
    with pytest.raises((AgentLost, ProcessLookupError)):
        web.observed([Cell("web", HOST, Protocol.TCP, 4)])


def test_missing_interpreter_for_exec_probe_is_named(web: Scene) -> None:
    """If the container has no Python for the exec probe, the error has the output of exec."""
    web["web"].hang_up()
    assert web["web"].exec("rm", "/usr/bin/python3").returncode == 0
    with pytest.raises(AgentLost, match=r"container web has ended; its output is .*python3"):
        web.observed([Cell("web", HOST, Protocol.TCP, 4)])


class Hanging(MydockerAdapter):
    """Adapter whose exec command never starts the agent."""

    def exec_command(self, name: str, argv: Sequence[str]) -> ExecCommand:
        """Return a command that reports on stderr and never ends."""
        return ExecCommand(("sh", "-c", f"echo no answer from {name} >&2; sleep 600", *argv))


def test_hanging_exec_times_out_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """If exec hangs in all containers, the probe waits for one time limit only.

    The hanging processes are killed.
    """
    monkeypatch.setattr("harness.probe.remote.ANSWER_BOUND", 1.0)
    monkeypatch.setattr("harness.probe.remote.ENDING_BOUND", 1.0)
    with World.build() as world:
        runtime = Hanging(world.host)
        runtime.start()
        with guarded(world, runtime.dialect):
            began = time.monotonic()
            with pytest.raises(AgentLost, match=r"did not reply within 1 s(.|\n)*no answer from"):
                Scene(world, runtime, CAST, probe="exec")
            assert time.monotonic() - began < GIVEN_UP
        runtime.stop()
