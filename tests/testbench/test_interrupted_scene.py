"""A scene that is interrupted while the runtime creates an object leaves nothing."""

from __future__ import annotations

import pytest

from harness.adapters.mydocker import MydockerAdapter
from harness.adapters.protocol import ContainerInfo, NetworkInfo, RuntimeBroken, RuntimeRefused
from harness.model.plan import Bridge, ContainerSpec, NetworkSpec, Plan
from harness.testbench.scene import Scene
from harness.world.build import World


class Cut(BaseException):
    """An interrupt such as KeyboardInterrupt, or a test's time-out."""


class Interrupted(MydockerAdapter):
    """Adapter that raises `error` before or after it creates the object of this name."""

    at: tuple[str, str] = ("", "")
    error: type[BaseException] = Cut

    def _made(self, name: str, when: str) -> None:
        if self.at == (name, when):
            raise self.error

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """Start a container, or interrupt."""
        self._made(spec.name, "before")
        facts = super().run(spec)
        self._made(spec.name, "after")
        return facts

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Create a network, or interrupt."""
        self._made(spec.name, "before")
        facts = super().network(spec)
        self._made(spec.name, "after")
        return facts


PLAN = Plan(
    networks=(NetworkSpec("lan"),),
    containers=(ContainerSpec("first", Bridge("lan")), ContainerSpec("second", Bridge("lan"))),
)


@pytest.mark.parametrize("error", [Cut, RuntimeBroken])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["lan", "second"])
def test_interrupted_object_is_removed(name: str, when: str, error: type[BaseException]) -> None:
    """Created already or not; the scene raises the interrupt."""
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
