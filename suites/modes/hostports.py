"""A port of the host that a container was asked to publish, and did not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from harness.adapters.protocol import RuntimeRefused
from harness.model.plan import ATTACKER, FAMILIES, HOST, Family, Mode, Publish
from harness.model.topology import Address
from harness.testbench.addressing import LOOPBACKS
from harness.testbench.listener import Listener, Transport, free_port
from harness.testbench.netns_view import NetnsView
from harness.testbench.scene import Scene


def assert_not_published(
    scene: Scene, mode: Mode, declared: Literal["refused", "warned"], transport: Transport
) -> None:
    """What is published in `mode` is refused by name, or warned of; the port stays the host's."""
    host = scene.place(HOST)
    before, port = host.snapshot(), free_port(host, transport)
    ports = (Publish(port, 80, transport),)
    if declared == "refused":
        assert "publish" in scene.refusal("guest", mode, ports=ports).said
        with pytest.raises(RuntimeRefused):
            scene.runtime.inspect("guest")
    else:
        assert scene.container("guest", mode, ports=ports).started.warnings
    assert before.changes(host.snapshot()) == []
    assert_nothing_took(scene, transport, port)


def assert_nothing_took(scene: Scene, transport: Transport, port: int) -> None:
    """The port is still the host's: one who listens there is alone, and hears every caller."""
    for family in FAMILIES:
        with Listener(scene.place(HOST), transport, family=family, port=port) as ear:
            for caller, address in _callers(scene, family):
                assert ear.hears(caller, at=address), f"{caller.name} calls {address}"


def _callers(scene: Scene, family: Family) -> Iterator[tuple[NetnsView, Address]]:
    host, attacker = scene.place(HOST), scene.place(ATTACKER)
    yield attacker, scene.world.address(HOST, family)
    yield host, scene.world.address(HOST, family)
    yield host, LOOPBACKS[family]
