"""Published ports called by containers: the one itself, its peers, and one on another network."""

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
    meets,
)

VAULT: Final = "vault"


def kept_in(market: Scene, shop: PublishedContainer, caller: str) -> bool:
    """Whether a container gets at no address of the host's, as declared; the host itself does."""
    own = addresses(market, shop.family)
    assert all(shop.serves(HOST, address) for address in own)
    calls = [PortCall(caller, address) for address in own]
    return is_closed(market.runtime, shop.family) and shop.overhears(calls) == []


@requirement("PUB-4")
@pytest.mark.parametrize("caller", ["shop", "peer"])
def test_it_answers_who_calls_by_the_hosts_address(
    market: Scene, shop: PublishedContainer, family: Family, caller: str
) -> None:
    """The container itself, and its peers, by every address of the host's."""
    met = [at for at in addresses(market, family) if meets(market, caller, at)]
    assert met or kept_in(market, shop, caller)
    for address in met:
        assert shop.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-4")
def test_a_peer_is_seen_as_declared(
    market: Scene, runtime: Adapter, shop: PublishedContainer, family: Family
) -> None:
    """As itself, or as the gateway; the container itself never as itself, and nobody as `lo`.

    Where a process in user space listens on the host nobody can tell whoever calls from another.
    """
    peer = market.place("peer").address(family)
    met = [at for at in addresses(market, family) if meets(market, "peer", at)]
    assert met or kept_in(market, shop, "peer")
    for address in met:
        by_peer, by_itself = shop.serves("peer", address), shop.serves("shop", address)
        assert by_peer
        assert by_itself
        if is_relayed(runtime):
            alike = {"gateway": shop.gateway, "own": shop.own}.get(runtime.dialect.published_source)
            for meeting in (by_peer, by_itself):
                assert not meeting.seen[0].is_loopback, f"by {address}"
                assert not alike or meeting.seen[0] == alike(), f"by {address}"
            continue
        as_client = runtime.dialect.hairpin_source == "client"
        assert by_peer.seen[0] == (peer if as_client else shop.gateway()), f"by {address}"
        assert by_itself.seen[0] == shop.gateway(), f"by {address}"


@requirement("PUB-5")
def test_another_network_reaches_it_as_declared(
    market: Scene, runtime: Adapter, shop: PublishedContainer, family: Family
) -> None:
    """By whichever address of the host's; a peer, whom it may be served for, is the control."""
    reachable = runtime.dialect.published_across == "reachable"
    met = [at for at in addresses(market, family) if meets(market, "stranger", at)]
    assert met or kept_in(market, shop, "stranger")
    for address in met:
        assert shop.serves("peer", address)
        if reachable:
            assert shop.serves("stranger", address), f"by {address}"
        else:
            assert shop.overhears([PortCall("stranger", address)]) == []


@requirement("PUB-5", "NET-2", "BR-4")
def test_publishing_opens_nothing_else_between_networks(
    market: Scene, runtime: Adapter, shop: PublishedContainer
) -> None:
    """The container's own address stays as far from another network as declared."""
    assert shop.serves("peer", shop.own(), port=INSIDE)
    assert shop.overhears([PortCall("stranger", shop.own())]) == []
    heard = shop.overhears([PortCall("stranger", shop.own(), INSIDE)])
    assert bool(heard) == (runtime.dialect.isolation == "none")


@pytest.fixture(scope="module")
def shut_in(market: Scene, family: Family) -> Iterator[Scene]:
    """The market, with `inmate` on an internal network."""
    market.network(VAULT, internal=True, ipv6=family == 6)
    market.container("inmate", Bridge(VAULT))
    yield market
    market.remove("inmate")
    market.remove_network(VAULT)


@requirement("INT-1", "PUB-5")
def test_an_internal_network_reaches_none_of_them(
    shut_in: Scene, shop: PublishedContainer, family: Family
) -> None:
    """By no address of the host's, not even that of its own gateway."""
    gateways = (item.ip for item in shut_in.runtime.network_facts(VAULT).gateways)
    own = {*addresses(shut_in, family), *(item for item in gateways if item.version == family)}
    assert shop.serves(HOST, shut_in.world.address(HOST, family))
    assert shop.overhears([PortCall("inmate", address) for address in own]) == []


@requirement("PUB-4", "LIFE-7")
@pytest.mark.parametrize("caller", ["web", BESIDE])
def test_it_does_so_when_it_has_been_started_again(fair: PublishNetwork, caller: str) -> None:
    """Over both transports, in every family."""
    container = fair.opened("web")[0].container
    container.stop()
    fair.scene.start("web")
    for shop in fair.shops(fair.scene["web"]):
        assert shop.serves(caller, fair.own(shop.family)), f"{caller} calls {shop}"
