"""A restarted container keeps or renews its address, and is reached at once."""

from __future__ import annotations

import pytest

from harness.adapters.protocol import Adapter
from harness.marks import requirement
from harness.model import FAMILIES, HOST, Bridge, Family
from harness.scene import Scene
from harness.topology import Address
from harness.traffic import TRANSPORTS, Ear


@requirement("LIFE-7")
def test_the_address_is_kept_or_renewed_as_declared(scene: Scene, runtime: Adapter) -> None:
    """Another container starts in between: it gets the address only where that was free."""
    scene.network("lan", ipv6=True)
    guest = scene.container("guest", Bridge("lan"))
    before = _addresses(guest.net.address(4), guest.net.address(6))
    guest.stop()
    other = scene.container("other", Bridge("lan"))
    taken = _addresses(other.net.address(4), other.net.address(6))
    guest.start()
    after = _addresses(guest.net.address(4), guest.net.address(6))
    assert not after & taken
    if runtime.dialect.restart_address == "kept":
        assert after == before
    elif runtime.dialect.address_reuse == "lowest":
        assert taken == before
    assert scene.observed() == scene.promised()


def _addresses(*found: Address | None) -> set[Address]:
    assert all(found)
    return {item for item in found if item}


@requirement("LIFE-7")
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_reached_at_once(scene: Scene, family: Family) -> None:
    """By a peer and by the host, which both had learned the way to it before."""
    scene.network("lan", ipv6=True)
    peer = scene.container("peer", Bridge("lan")).net
    guest = scene.container("guest", Bridge("lan"))
    callers = (peer, scene.place(HOST))
    for _ in range(2):
        for caller in callers:
            for transport in TRANSPORTS:
                with Ear(guest.net, transport, family=family) as ear:
                    assert ear.hears(caller, at=guest.net.address(family))
        guest.stop()
        guest.start()
    assert scene.observed() == scene.promised()
