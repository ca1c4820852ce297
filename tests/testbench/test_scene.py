"""A scene that cannot be removed says why, having tried everything."""

from __future__ import annotations

import pytest

from harness.adapters.protocol import Adapter
from harness.testbench.scene import Scene
from harness.world.build import World


def failing(error: BaseException) -> object:
    """What raises an error, whatever it is called with."""

    def fail(*_: object) -> None:
        raise error

    return fail


def test_what_went_wrong_first_is_raised_and_the_rest_removed(
    world: World, runtime: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network that somebody is on will not go either."""
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


def test_who_interrupts_it_is_heard(
    world: World, runtime: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though something had gone wrong before."""
    with Scene(world, runtime) as scene:
        scene.network("lan")
        with monkeypatch.context() as patched:
            patched.setattr(scene, "remove", failing(ValueError("first")))
            patched.setattr(scene, "remove_network", failing(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                scene.close()
