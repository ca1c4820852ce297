"""Tests of podman with real containers: a rare refusal, and helper programs from a prefix."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.adapters import registry
from harness.adapters.protocol import RuntimeRefused
from harness.adapters.support.programs import search_path
from harness.model.plan import HOST, Bridge
from harness.plugin.worker_notes import runtime_output
from harness.report import expectations
from harness.report.expectations import DeviationKind
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import guarded
from tests.adapters.vendors import TRIED

SEEN = Path("/run/netmodes/seen")
"""File in the host to which programs of a prefix write their names."""
EXPECTED = Path(__file__).parents[2] / "suites/expected"


@pytest.mark.parametrize("name", sorted({"podman", "podman-runc", "podman-runsc"} & set(TRIED)))
def test_start_during_duplicate_address_detection_is_refused_as_listed(name: str) -> None:
    """A start during duplicate address detection is refused with the message in the expectations.

    No container is left.
    """
    listed = expectations.loads((EXPECTED / f"{name}.toml").read_text())
    sayings = [item for item in listed if item.kind is DeviationKind.SAYING]
    assert len(sayings) == 2
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        adapter.start()
        with guarded(world, adapter.dialect), Scene(world, adapter) as scene:
            lan = scene.network("lan", ipv6=True)
            scene.container("early", Bridge(lan.name)).stop()
            scene.netns(HOST).tune({"net.ipv6.conf.all.accept_dad": 1})
            refused = scene.refusal("late", Bridge(lan.name))
            with pytest.raises(RuntimeRefused) as again:
                scene["early"].start()
            scene.netns(HOST).tune({"net.ipv6.conf.all.accept_dad": 0})
        adapter.stop()
    for error in (refused, again.value):
        (words,) = runtime_output(error)
        assert all(item.says(words) for item in sayings), words


@pytest.mark.parametrize("name", sorted({"podman", "podman-runc"} & set(TRIED)))
def test_helpers_of_podman_come_from_the_prefix(name: str, tmp_path: Path) -> None:
    """With a prefix, podman uses the helper programs in the prefix.

    By default podman looks in fixed folders before it searches PATH.
    """
    path = f"{search_path()}:/usr/libexec/podman:/usr/lib/podman"
    started = {"conmon", "runc" if name.endswith("runc") else "crun", "netavark"}
    for program in started:
        own = shutil.which(program, path=path)
        there = tmp_path / f"usr/{'lib/podman' if program == 'netavark' else 'bin'}" / program
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(f'#!/bin/sh\necho {program} >> {SEEN}\nexec {own} "$@"\n')
        there.chmod(0o755)
    with World.build() as world:
        adapter = registry.find(f"{name}@{tmp_path}")(world.host)
        adapter.start()
        with Scene(world, adapter) as scene:
            scene.container("web")
        seen = world.host.call(Path.read_text, SEEN)
        adapter.stop()
    assert set(seen.split()) == started
