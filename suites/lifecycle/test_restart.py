"""Restarted containers, which keep or renew their address and are reachable at once."""

from __future__ import annotations

from harness.adapters.protocol import Adapter
from harness.model.plan import HOST, Family
from harness.model.topology import Address
from harness.plugin.marks import requirement
from harness.testbench.container import Container
from harness.testbench.listener import TRANSPORTS, Listener
from harness.testbench.scene import Scene
from suites.support.features import ipv4_and_ipv6, lan


@requirement("LIFE-7")
def test_restarted_container_keeps_or_renews_its_address_as_declared(
    scene: Scene, runtime: Adapter
) -> None:
    """A restarted container keeps its address or gets a new one, as the runtime declares.

    A container that starts while the first is stopped gets that address only if it is not reserved.
    """
    own = lan(scene)
    guest = scene.container("guest", own)
    before = _addresses(guest)
    guest.stop()
    other = scene.container("other", own)
    taken = _addresses(other)
    guest.start()
    after = _addresses(guest)
    assert not after & taken
    if runtime.dialect.restart_address == "kept":
        assert after == before
    elif runtime.dialect.address_reuse == "lowest":
        assert taken == before
    assert scene.observed() == scene.promised()


def _addresses(container: Container) -> set[Address]:
    held = {item.ip for item in container.net.interfaces("eth0")}
    assert held
    return held


@requirement("LIFE-7")
@ipv4_and_ipv6
def test_restarted_container_is_reachable_at_once(scene: Scene, family: Family) -> None:
    """A peer and the host, which know its former MAC, reach a restarted container at once."""
    own = lan(scene, family=family)
    peer = scene.container("peer", own).net
    guest = scene.container("guest", own)
    callers = (peer, scene.netns(HOST))
    for _ in range(2):
        for caller in callers:
            for transport in TRANSPORTS:
                with Listener(guest.net, transport, family=family) as listener:
                    assert listener.reached_from(caller, at=guest.net.address(family))
        guest.stop()
        guest.start()
    assert scene.observed() == scene.promised()
