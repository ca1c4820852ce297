"""Reachability between all sources and targets of the reference plan, compared with the promises.

Each source has its own test, so that a failure names the source. All targets of a source are tried
at the same time.
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
    """A bridged container reaches peers and host directly, and other targets by masquerading."""
    row = cast.promised().select(source=source)
    assert cast.observed(row) == row


@requirement("HOST-4")
def test_host_mode_container_has_reachability_of_the_host(cast: Scene) -> None:
    """A host-mode container reaches the same targets as the host, with the same TTLs."""
    row = cast.promised().select(source=ON_HOST)
    assert cast.observed(row) == row


@requirement("CTR-1", "CTR-2")
def test_joining_container_has_reachability_of_joined_container(cast: Scene) -> None:
    """A joining container reaches the same targets as the joined one, from the same addresses."""
    row = cast.promised().select(source=JOINER)
    assert cast.observed(row) == row


@requirement("NONE-4")
def test_container_without_network_reaches_only_itself(cast: Scene) -> None:
    """A container without a network reaches its loopback and has no route to any other target."""
    row = cast.promised().select(source=ALONE)
    assert cast.observed(row) == row


@requirement("BR-27")
def test_host_reaches_its_containers_directly(cast: Scene) -> None:
    """The host reaches its containers over their bridge, without address translation."""
    row = cast.promised().select(source=HOST)
    assert cast.observed(row) == row


@requirement("BR-9", "BYS-2")
@pytest.mark.parametrize("source", [NS1, NS2, INTERNET, ATTACKER])
def test_outsiders_reach_the_host_and_no_unpublished_container(cast: Scene, source: str) -> None:
    """Outsiders reach the host, but the host forwards none of their packets to a container."""
    row = cast.promised().select(source=source)
    assert cast.observed(row) == row
