"""The reference plan, all to all: observed reachability equals promised reachability.

One test for each source, so that a failure names the source; the cells of a row are measured at
once.
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
    NS2,
    ON_HOST,
)
from harness.plugin.marks import requirement
from harness.testbench.scene import Scene


@requirement("BR-1", "BR-4", "BR-5", "BR-6", "BR-7", "BR-8", "V6-3")
@pytest.mark.parametrize("source", [CONTAINER01, CONTAINER02])
def test_bridged_container_reaches_promised_targets(cast: Scene, source: str) -> None:
    """Peers and the host directly, everything beyond through the host and under its address."""
    row = cast.promised().select(source=source)
    assert cast.observed(row) == row


@requirement("HOST-4")
def test_host_mode_container_reaches_what_the_host_reaches(cast: Scene) -> None:
    """Its row of the matrix is the host's own, TTLs included."""
    row = cast.promised().select(source=ON_HOST)
    assert cast.observed(row) == row


@requirement("CTR-1", "CTR-2")
def test_joiner_reaches_what_the_joined_container_reaches(cast: Scene) -> None:
    """It sends from the joined container's addresses and is answered like it."""
    row = cast.promised().select(source=JOINER)
    assert cast.observed(row) == row


@requirement("NONE-4")
def test_container_without_network_reaches_only_itself(cast: Scene) -> None:
    """Loopback answers; all else fails at once without a route."""
    row = cast.promised().select(source=ALONE)
    assert cast.observed(row) == row


@requirement("BR-27")
def test_host_reaches_its_containers(cast: Scene) -> None:
    """Directly over their bridge, without a router between."""
    row = cast.promised().select(source=HOST)
    assert cast.observed(row) == row


@requirement("BR-9", "BYS-2")
@pytest.mark.parametrize("source", [NS1, NS2, INTERNET, ATTACKER])
def test_outsiders_reach_the_host_and_no_container(cast: Scene, source: str) -> None:
    """The host forwards no packet to an unpublished container."""
    row = cast.promised().select(source=source)
    assert cast.observed(row) == row
