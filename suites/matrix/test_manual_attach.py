"""Reachability from `container06-none` after a veth end is moved into it manually.

The container is then on the bridge like any other, although the runtime does not know this. The
containers and networks are those of the reference plan.
"""

from __future__ import annotations

import pytest

from harness.model.plan import (
    ALONE,
    ATTACKER,
    CONTAINER01,
    CONTAINER02,
    HOST,
    INTERNET,
    JOINER,
    NS1,
)
from harness.plugin.marks import requirement
from harness.testbench.scene import Scene


@requirement("ATT-3")
def test_manually_attached_container_has_reachability_of_bridged_container(
    attached: Scene,
) -> None:
    """A manually attached container reaches the same targets as a bridged container."""
    row = attached.promised().select(source=ALONE)
    assert attached.observed(row) == row


@requirement("ATT-3", "BR-4", "BR-27")
@pytest.mark.parametrize("source", [CONTAINER01, CONTAINER02, JOINER, HOST])
def test_manually_attached_container_is_reachable_from_peers_and_host(
    attached: Scene, source: str
) -> None:
    """Peers and the host reach a manually attached container at its address on the bridge."""
    column = attached.promised().select(source=source, target=ALONE)
    assert attached.observed(column) == column


@requirement("BR-9")
@pytest.mark.parametrize("source", [NS1, INTERNET, ATTACKER])
def test_manually_attached_container_is_unreachable_for_outsiders(
    attached: Scene, source: str
) -> None:
    """Outsiders do not reach a manually attached container by its own address."""
    column = attached.promised().select(source=source, target=ALONE)
    assert attached.observed(column) == column
