"""A port of the host that a container was asked to publish, and did not."""

from __future__ import annotations

from collections.abc import Iterator

from harness.addresses import LOOPBACKS
from harness.model import ATTACKER, FAMILIES, HOST, Family
from harness.place import Place
from harness.scene import Scene
from harness.topology import Address
from harness.traffic import Ear, Transport


def assert_nothing_took(scene: Scene, transport: Transport, port: int) -> None:
    """The port is still the host's: one who listens there is alone, and hears every caller."""
    for family in FAMILIES:
        with Ear(scene.place(HOST), transport, family=family, port=port) as ear:
            for caller, address in _callers(scene, family):
                assert ear.hears(caller, at=address), f"{caller.name} calls {address}"


def _callers(scene: Scene, family: Family) -> Iterator[tuple[Place, Address]]:
    host, attacker = scene.place(HOST), scene.place(ATTACKER)
    yield attacker, scene.world.address(HOST, family)
    yield host, scene.world.address(HOST, family)
    yield host, LOOPBACKS[family]
