"""The cast that every matrix starts from: one container in each net mode (pure)."""

from __future__ import annotations

from harness.model import Bridge, ContainerSpec, Host, Joined, Nothing, Plan

CONTAINER01 = "container01"
CONTAINER02 = "container02"
ON_HOST = "container03-host"
JOINER = "container05-container"
ALONE = "container06-none"

CAST = Plan(
    containers=(
        ContainerSpec(CONTAINER01, Bridge()),
        ContainerSpec(CONTAINER02, Bridge()),
        ContainerSpec(ON_HOST, Host()),
        ContainerSpec(JOINER, Joined(CONTAINER01)),
        ContainerSpec(ALONE, Nothing()),
    )
)


def cast(*, on_host: bool = True, joined: bool = True) -> Plan:
    """The cast, without those in mode host, or container:X, where a runtime does not claim it."""
    absent = tuple(mode for mode, there in ((Host, on_host), (Joined, joined)) if not there)
    there = (item for item in CAST.containers if not isinstance(item.mode, absent))
    return Plan(containers=tuple(there))
