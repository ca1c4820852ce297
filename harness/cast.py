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
