"""What the suites of the link layer share."""

from __future__ import annotations

import pytest

from harness.testbench.container import Container
from suites.support.three_containers import ThreeContainers, trio

__all__ = ["trio"]


@pytest.fixture(scope="package")
def stranger(trio: ThreeContainers) -> Container:
    """A container `d` beside the trio, on another network of the same families."""
    other = trio.scene.network("other", ipv6=trio.family == 6)
    trio.scene.containers(d=other)
    return trio.scene["d"]
