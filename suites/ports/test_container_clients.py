"""Published ports with containers as clients: the container itself, peers, other networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from harness.adapters.protocol import Adapter
from harness.model.plan import HOST, Bridge, Family
from harness.plugin.marks import requirement
from harness.testbench.scene import Scene
from suites.ports.published import (
    BESIDE,
    INSIDE,
    PortCall,
    PublishedContainer,
    PublishNetwork,
    addresses,
    is_closed,
    is_relayed,
    reaches_host,
)

VAULT: Final = "vault"


def is_cut_off(ports_scene: Scene, published: PublishedContainer, caller: str) -> bool:
    """Return True if a container reaches no address of the host, and the runtime declares this.

    As a control, assert that the host reaches all of these addresses.
    """
    own = addresses(ports_scene, published.family)
    assert all(published.serves(HOST, address) for address in own)
    calls = [PortCall(caller, address) for address in own]
    return is_closed(ports_scene.runtime, published.family) and published.delivered(calls) == []


@requirement("PUB-4")
@pytest.mark.parametrize("caller", ["published", "peer"], ids=["itself", "peer"])
def test_container_and_peer_reach_published_port_by_host_address(
    ports_scene: Scene, published: PublishedContainer, family: Family, caller: str
) -> None:
    """A container and its peer reach the container's published port by each address of the host."""
    reaching = [
        at for at in addresses(ports_scene, family) if reaches_host(ports_scene, caller, at)
    ]
    assert reaching or is_cut_off(ports_scene, published, caller)
    for address in reaching:
        assert published.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-4")
def test_container_sees_source_of_peer_at_published_port_as_declared(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer, family: Family
) -> None:
    """At a published port, the container sees the peer's or the gateway's address, as declared.

    The source is never a loopback address or the container's own. Behind a user-space process, all
    sources look the same.
    """
    peer = ports_scene.netns("peer").address(family)
    reaching = [
        at for at in addresses(ports_scene, family) if reaches_host(ports_scene, "peer", at)
    ]
    assert reaching or is_cut_off(ports_scene, published, "peer")
    for address in reaching:
        by_peer, by_itself = (
            published.serves("peer", address),
            published.serves("published", address),
        )
        assert by_peer
        assert by_itself
        if is_relayed(runtime):
            alike = {"gateway": published.gateway, "own": published.own}.get(
                runtime.dialect.published_source
            )
            for exchange in (by_peer, by_itself):
                assert not exchange.seen[0].is_loopback, f"by {address}"
                assert not alike or exchange.seen[0] == alike(), f"by {address}"
            continue
        as_client = runtime.dialect.hairpin_source == "client"
        assert by_peer.seen[0] == (peer if as_client else published.gateway()), f"by {address}"
        assert by_itself.seen[0] == published.gateway(), f"by {address}"


@requirement("PUB-5")
def test_container_on_other_network_reaches_published_port_as_declared(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer, family: Family
) -> None:
    """A container on another network reaches a published port by the host's address, if declared.

    As a control, the peer reaches the port.
    """
    reachable = runtime.dialect.published_across == "reachable"
    reaching = [
        at for at in addresses(ports_scene, family) if reaches_host(ports_scene, "outside", at)
    ]
    assert reaching or is_cut_off(ports_scene, published, "outside")
    for address in reaching:
        assert published.serves("peer", address)
        if reachable:
            assert published.serves("outside", address), f"by {address}"
        else:
            assert published.delivered([PortCall("outside", address)]) == []


@requirement("PUB-5", "NET-2", "BR-4")
def test_published_port_does_not_open_container_address_to_other_networks(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer
) -> None:
    """A published port does not make its container's own address reachable from other networks."""
    assert published.serves("peer", published.own(), port=INSIDE)
    assert published.delivered([PortCall("outside", published.own())]) == []
    received = published.delivered([PortCall("outside", published.own(), INSIDE)])
    assert bool(received) == (runtime.dialect.isolation == "none")


@pytest.fixture(scope="module")
def internal_scene(ports_scene: Scene, family: Family) -> Iterator[Scene]:
    """Add the container `internal`, which is on an internal network."""
    ports_scene.network(VAULT, internal=True, ipv6=family == 6)
    ports_scene.container("internal", Bridge(VAULT))
    yield ports_scene
    ports_scene.remove("internal")
    ports_scene.remove_network(VAULT)


@requirement("INT-1", "PUB-5")
def test_container_on_internal_network_reaches_no_published_port(
    internal_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """A container on an internal network reaches no published port by any address of the host."""
    gateways = (item.ip for item in internal_scene.runtime.network_facts(VAULT).gateways)
    own = {
        *addresses(internal_scene, family),
        *(item for item in gateways if item.version == family),
    }
    assert published.serves(HOST, internal_scene.world.address(HOST, family))
    assert published.delivered([PortCall("internal", address) for address in own]) == []


@requirement("PUB-4", "LIFE-7")
@pytest.mark.parametrize("caller", ["web", BESIDE], ids=["itself", "peer"])
def test_container_and_peer_reach_published_port_after_restart(
    publish_network: PublishNetwork, caller: str
) -> None:
    """A restarted container and its peer reach the container's published port.

    They use the host's address.
    """
    container = publish_network.publish("web")[0].container
    container.stop()
    publish_network.scene.start("web")
    for published in publish_network.views(publish_network.scene["web"]):
        assert published.serves(caller, publish_network.own(published.family)), (
            f"{caller} calls {published}"
        )
