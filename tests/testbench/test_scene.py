"""Tests of the end of a scene, the networks and containers of a test.

All of them are removed, then the first error is raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.adapters.mydocker import MydockerAdapter
from harness.adapters.protocol import (
    Adapter,
    ContainerInfo,
    NetworkInfo,
    RuntimeBroken,
    RuntimeRefused,
)
from harness.model.plan import Bridge, ContainerSpec, NetworkSpec, Plan
from harness.testbench.scene import Scene
from harness.world.build import World


def failing(error: BaseException) -> object:
    """Return a function that raises an error."""

    def fail(*_: object) -> None:
        raise error

    return fail


def test_first_error_is_raised_after_the_scene_is_removed(
    world: World, runtime: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error does not prevent removing the rest of the scene; the first one is raised.

    Later errors are consequences: a network in use, for example, cannot be removed.
    """
    scene = Scene(world, runtime)
    scene.network("lan")
    with monkeypatch.context() as patched:
        patched.setattr(scene, "remove", failing(ValueError("first")))
        with monkeypatch.context() as too:
            too.setattr(scene, "remove_network", failing(ValueError("second")))
            with pytest.raises(ValueError, match="first"):
                scene.close()
        with pytest.raises(ValueError, match="first"):
            scene.close()
    assert scene.plan.networks == ()


def test_interrupt_is_raised_in_preference_to_errors(
    world: World, runtime: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt is raised in preference to an earlier error."""
    with Scene(world, runtime) as scene:
        scene.network("lan")
        with monkeypatch.context() as patched:
            patched.setattr(scene, "remove", failing(ValueError("first")))
            patched.setattr(scene, "remove_network", failing(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                scene.close()


class Cut(BaseException):
    """Exception such as KeyboardInterrupt or that of a test's time limit."""


class Interrupted(MydockerAdapter):
    """Adapter that raises `error` before or after it creates the object of a given name."""

    at: tuple[str, str] = ("", "")
    error: type[BaseException] = Cut

    @contextmanager
    def _creating(self, name: str) -> Iterator[None]:
        if self.at == (name, "before"):
            raise self.error
        yield
        if self.at == (name, "after"):
            raise self.error

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Start a container, or raise the error."""
        with self._creating(spec.name):
            return super().run(spec)

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network, or raise the error."""
        with self._creating(spec.name):
            return super().network(spec)


PLAN = Plan(
    networks=(NetworkSpec("lan"),),
    containers=(ContainerSpec("first", Bridge("lan")), ContainerSpec("second", Bridge("lan"))),
)


@pytest.mark.parametrize("error", [Cut, RuntimeBroken])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["lan", "second"])
def test_interrupted_creation_of_an_object_is_undone(
    name: str, when: str, error: type[BaseException]
) -> None:
    """If its creation is interrupted, a network or container is removed.

    Then the interrupt is raised.
    """
    with World.build() as world:
        runtime = Interrupted(world.host)
        runtime.start()
        runtime.at, runtime.error = (name, when), error
        with pytest.raises(error):
            Scene(world, runtime, PLAN)
        for gone in ("first", "second"):
            with pytest.raises(RuntimeRefused, match=gone):
                runtime.inspect(gone)
        with pytest.raises(RuntimeRefused, match="lan"):
            runtime.network_facts("lan")
        runtime.stop()
