"""Fixtures of the link-layer suites."""

from __future__ import annotations

import pytest

from harness.testbench.container import Container
from suites.support.three_containers import ThreeContainers, trio

__all__ = ["trio"]


@pytest.fixture(scope="package")
def other_network_container(trio: ThreeContainers) -> Container:
    """Start a container `d` on another network of the same families."""
    other = trio.scene.network("other", ipv6=trio.family == 6)
    trio.scene.containers(d=other)
    return trio.scene["d"]
