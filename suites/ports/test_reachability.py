"""Reachability of published ports, and the source addresses that containers see there."""

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
"""Clients on the LAN, on the internet, and behind the host."""


@requirement("PUB-1")
def test_published_port_answers_on_every_host_address(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """A published port answers on every address of the host, including its loopback.

    The clients are a neighbour on the LAN, the internet, a bystander and the host.
    """
    bridge = 0 if is_relayed(ports_scene.runtime) else 1
    assert len(addresses(ports_scene, family)) >= 2 + bridge  # on the LAN, on br0, on the bridge
    for caller, address in callers(ports_scene, family, OUTSIDE):
        assert published.serves(caller, address), f"{caller} calls {address}"


@requirement("PUB-1")
def test_published_port_answers_on_address_that_host_gets_later(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """A published port answers on an address that the host gets after the port is published.

    The clients are a neighbour on the LAN and the host.
    """
    with extra_address(ports_scene, family) as address:
        for caller in (ATTACKER, HOST):
            assert published.serves(caller, address), caller


@requirement("PUB-1")
def test_only_published_ports_are_reachable_by_host_address(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """By the host's address, outsiders reach only published ports, in the published transport."""
    address = ports_scene.world.address(HOST, family)
    (other,) = set(PORTS.values()) - {published.port}
    for caller in OUTSIDE:
        assert published.serves(caller, address)
        ports = (INSIDE, other, published.port - 1, published.port + 1)
        assert published.delivered([PortCall(caller, address, port) for port in ports]) == []


@requirement("PUB-1", "BR-9")
def test_address_of_published_container_is_reachable_as_declared(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer, family: Family
) -> None:
    """Outsiders reach a published container by its own address only if the runtime declares so.

    The number of the host port is closed at the container's address in any case.
    """
    for caller in OUTSIDE:
        assert published.serves(caller, ports_scene.world.address(HOST, family))
        assert published.delivered([PortCall(caller, published.own(), published.port)]) == []
        direct = published.delivered([PortCall(caller, published.own(), INSIDE)])
        assert bool(direct) == (runtime.dialect.direct_routing == "accept")


@requirement("PUB-15")
def test_listener_on_container_loopback_is_not_published(
    ports_scene: Scene, transport: Transport, family: Family
) -> None:
    """A published port does not make a listener on the container's loopback reachable."""
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
def test_container_sees_source_of_outsider_at_published_port_as_declared(
    ports_scene: Scene, published: PublishedContainer, family: Family
) -> None:
    """At a published port, the container sees the source of outsiders that the runtime declares.

    The source is the outsider's own address and port, the gateway's address or the container's.
    """
    for caller in OUTSIDE:
        for address in addresses(ports_scene, family):
            assert_seen_as_declared(published, caller, address)


@requirement("PUB-6")
def test_container_never_sees_loopback_source_at_published_port(
    ports_scene: Scene, runtime: Adapter, published: PublishedContainer, family: Family
) -> None:
    """At a published port, a container never sees a loopback address as the source.

    The container sees its own address only if this is declared, or if the client has it too.
    """
    hosts = published.own() in addresses(ports_scene, family)
    alike = hosts or runtime.dialect.published_source == "own"
    for caller, address in callers(ports_scene, family, (ATTACKER,)):
        exchange = published.serves(caller, address)
        assert exchange
        assert not exchange.seen[0].is_loopback, f"{caller} calls {address}"
        assert alike or exchange.seen[0] != published.own()
