"""A scene that cannot be removed reports the first error after all steps."""

from __future__ import annotations

import pytest

from harness.adapters.protocol import Adapter
from harness.testbench.scene import Scene
from harness.world.build import World


def failing(error: BaseException) -> object:
    """Return a function that raises an error."""

    def fail(*_: object) -> None:
        raise error

    return fail


def test_first_error_is_raised_and_the_rest_is_removed(
    world: World, runtime: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network in use cannot be removed either."""
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


def test_interrupt_is_raised_before_errors(
    world: World, runtime: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although an error came first."""
    with Scene(world, runtime) as scene:
        scene.network("lan")
        with monkeypatch.context() as patched:
            patched.setattr(scene, "remove", failing(ValueError("first")))
            patched.setattr(scene, "remove_network", failing(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                scene.close()
