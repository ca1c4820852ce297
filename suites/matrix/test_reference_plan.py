"""The whole cast, everybody to everybody: what real packets do equals what was promised.

One test for each source, so that a failure says whose packets went astray; the
cells of a row are asked at once.
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
def test_bridged_containers_reach_everybody_they_should(cast: Scene, source: str) -> None:
    """Peers and the host directly, what is beyond through it and under its address."""
    row = cast.promised().select(source=source)
    assert cast.observed(row) == row


@requirement("HOST-4")
def test_a_host_mode_container_reaches_what_the_host_reaches(cast: Scene) -> None:
    """Its row of the matrix is the host's own, TTLs included."""
    row = cast.promised().select(source=ON_HOST)
    assert cast.observed(row) == row


@requirement("CTR-1", "CTR-2")
def test_a_joiner_reaches_what_the_joined_container_reaches(cast: Scene) -> None:
    """It sends from the joined container's addresses and is answered like it."""
    row = cast.promised().select(source=JOINER)
    assert cast.observed(row) == row


@requirement("NONE-4")
def test_a_container_without_network_reaches_itself_only(cast: Scene) -> None:
    """Loopback answers, everything else fails at once for want of a route."""
    row = cast.promised().select(source=ALONE)
    assert cast.observed(row) == row


@requirement("BR-27")
def test_the_host_reaches_its_containers(cast: Scene) -> None:
    """Directly, over their bridge, without a router between."""
    row = cast.promised().select(source=HOST)
    assert cast.observed(row) == row


@requirement("BR-9", "BYS-2")
@pytest.mark.parametrize("source", [NS1, NS2, INTERNET, ATTACKER])
def test_outsiders_reach_the_host_and_no_container(cast: Scene, source: str) -> None:
    """Their packets arrive at the host, which passes none on to an unpublished container."""
    row = cast.promised().select(source=source)
    assert cast.observed(row) == row
