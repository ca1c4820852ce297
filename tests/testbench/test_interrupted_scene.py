"""A scene that is cut off while the runtime makes something leaves nothing of it."""

from __future__ import annotations

import pytest

from harness.adapters.mydocker import MydockerAdapter
from harness.adapters.protocol import ContainerInfo, NetworkInfo, RuntimeBroken, RuntimeRefused
from harness.model.plan import Bridge, ContainerSpec, NetworkSpec, Plan
from harness.testbench.scene import Scene
from harness.world.build import World


class Cut(BaseException):
    """As KeyboardInterrupt, or the failure of a test that took too long."""


class Interrupted(MydockerAdapter):
    """Is cut off by `error` before, or after, it makes what has this name."""

    at: tuple[str, str] = ("", "")
    error: type[BaseException] = Cut

    def _made(self, name: str, when: str) -> None:
        if self.at == (name, when):
            raise self.error

    def run(self, spec: ContainerSpec) -> ContainerInfo:
        """As always, unless it is this one's turn."""
        self._made(spec.name, "before")
        facts = super().run(spec)
        self._made(spec.name, "after")
        return facts

    def network(self, spec: NetworkSpec) -> NetworkInfo:
        """Likewise."""
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
def test_what_was_being_made_is_removed(name: str, when: str, error: type[BaseException]) -> None:
    """Whether it was there already or not; and what came in between is what is raised."""
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
