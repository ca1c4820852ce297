"""What podman says now and then, live: the words by which `suites/expected` knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import expectations
from harness.adapters import registry
from harness.adapters.protocol import RuntimeRefused
from harness.expectations import Kind
from harness.guard import guarded
from harness.model import HOST, Bridge
from harness.report.said import said
from harness.scene import Scene
from harness.world.build import World
from tests.adapters.vendors import TRIED

EXPECTED = Path(__file__).parents[2] / "suites/expected"


@pytest.mark.parametrize("name", sorted({"podman", "podman-runc", "podman-runsc"} & set(TRIED)))
def test_a_start_that_comes_too_early_is_refused_in_the_words_that_are_listed(name: str) -> None:
    """Each time where the host probes for duplicates on every link; and nothing is left of it."""
    listed = expectations.loads((EXPECTED / f"{name}.toml").read_text())
    sayings = [item for item in listed if item.kind is Kind.SAYING]
    assert len(sayings) == 2
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        adapter.start()
        with guarded(world, adapter.dialect), Scene(world, adapter) as scene:
            lan = scene.network("lan", ipv6=True)
            scene.container("early", Bridge(lan.name)).stop()
            scene.place(HOST).tune({"net.ipv6.conf.all.accept_dad": 1})
            refused = scene.refusal("late", Bridge(lan.name))
            with pytest.raises(RuntimeRefused) as again:
                scene["early"].start()
            scene.place(HOST).tune({"net.ipv6.conf.all.accept_dad": 0})
        adapter.stop()
    for error in (refused, again.value):
        (words,) = said(error)
        assert all(item.says(words) for item in sayings), words
