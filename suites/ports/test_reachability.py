"""Reachability of a published port, and the source address that the container sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from harness.adapters.protocol import Adapter
from harness.model.plan import ATTACKER, FAMILIES, HOST, INTERNET, NS1, Family
from harness.plugin.marks import requirement
from harness.testbench.listener import Listener, Transport
from harness.testbench.scene import LOOPBACKS, Scene
from suites.ports.published import (
    INSIDE,
    PORTS,
    PortCall,
    PublishedContainer,
    addresses,
    assert_seen_as_declared,
    callers,
    extra_address,
    is_relayed,
)

OUTSIDE: Final = (ATTACKER, INTERNET, NS1)
"""The LAN, a host beyond the routers, and a bystander behind the host."""


@requirement("PUB-1")
def test_published_port_answers_on_every_host_address(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """To the LAN, the internet, a bystander and the host, and on the host's loopback."""
    bridge = 0 if is_relayed(ports_scene.runtime) else 1
    assert len(addresses(ports_scene, family)) >= 2 + bridge  # its own, br0's, the network's
    for caller, address in callers(ports_scene, family, OUTSIDE):
        assert published.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-1")
def test_published_port_answers_on_a_later_host_address(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """To the LAN, and to the host itself."""
    with extra_address(ports_scene, family) as address:
        for caller in (ATTACKER, HOST):
            assert published.serves(caller, address), caller


@requirement("PUB-1")
def test_only_published_ports_are_reachable(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """Neither other ports, nor the other transport."""
    address = ports_scene.world.address(HOST, family)
    (other,) = set(PORTS.values()) - {published.port}
    for caller in OUTSIDE:
        assert published.serves(caller, address)
        ports = (INSIDE, other, published.port - 1, published.port + 1)
        assert published.delivered([PortCall(caller, address, port) for port in ports]) == []


@requirement("PUB-1", "BR-9")
def test_container_address_is_as_reachable_as_declared(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer, family: Family
) -> None:
    """At the container's port; the host's port is closed there."""
    for caller in OUTSIDE:
        assert published.serves(caller, ports_scene.world.address(HOST, family))
        assert published.delivered([PortCall(caller, published.own(), published.port)]) == []
        direct = published.delivered([PortCall(caller, published.own(), INSIDE)])
        assert bool(direct) == (runtime.dialect.direct_routing == "accept")


@requirement("PUB-15")
def test_listener_on_container_loopback_is_unreachable(
    ports_scene: Scene, transport: Transport, family: Family
) -> None:
    """A listener at the same port on the container's own loopback is not called."""
    published = PublishedContainer(
        ports_scene, ports_scene["published"], transport, family, PORTS[transport]
    )
    inside = published.container.net
    with Listener(
        inside, transport, address=LOOPBACKS[published.inner_family], port=INSIDE
    ) as listener:
        assert listener.reached_from(inside)
        everybody = [
            *callers(ports_scene, family, OUTSIDE),
            ("peer", ports_scene.world.address(HOST, family)),
        ]
        calls = [PortCall(caller, address) for caller, address in everybody]
        assert (
            replace(published, listeners=dict.fromkeys(FAMILIES, listener)).delivered(calls) == []
        )


@requirement("PUB-6")
def test_source_of_outside_clients_is_as_declared(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """Their own address and port, or the gateway; by any address of the host."""
    for caller in OUTSIDE:
        for address in addresses(ports_scene, family):
            assert_seen_as_declared(published, caller, address)


@requirement("PUB-6")
def test_source_is_never_the_loopback(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer, family: Family
) -> None:
    """Not even for the host: inside, the loopback is the container itself.

    Neither is it the container's address, unless declared or equal to the caller's.
    """
    hosts = published.own() in addresses(ports_scene, family)
    alike = hosts or runtime.dialect.published_source == "own"
    for caller, address in callers(ports_scene, family, (ATTACKER,)):
        exchange = published.serves(caller, address)
        assert exchange
        assert not exchange.seen[0].is_loopback, f"{caller} calls {address}"
        assert alike or exchange.seen[0] != published.own()
