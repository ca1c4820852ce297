"""Fixtures of the link-layer tests."""

from __future__ import annotations

import pytest

from harness.testbench.container import Container
from suites.support.three_containers import ThreeContainers, trio

__all__ = ["trio"]


@pytest.fixture(scope="package")
def other_network_container(trio: ThreeContainers) -> Container:
    """Start the container `d` on another network that has the families of the shared one."""
    other = trio.scene.network("other", ipv6=trio.family == 6)
    trio.scene.containers(d=other)
    return trio.scene["d"]
