"""An internal network: peers and the bridge, and no word of it outside, names included."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any, Final

import dns.exception
import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

from harness.adapters.protocol import Adapter
from harness.model.features import Feature
from harness.model.plan import (
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    NS1,
    Bridge,
    ContainerSpec,
    Family,
    NetworkSpec,
    Plan,
    Protocol,
)
from harness.model.topology import WWW, Address, pick
from harness.plugin.marks import requirement
from harness.probe.resolver import nameservers
from harness.testbench import lookup
from harness.testbench.listener import TRANSPORTS, Transport
from harness.testbench.lookup import RESOLV_CONF, saying
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets.craft import send_frame
from harness.testbench.packets.tap_pool import TapPool
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.services import Services
from suites.support.dns import KINDS, heard, held, looked_up, resolved, unheard_of, with_names
from suites.support.features import has_ipv6
from suites.support.packet_kinds import PORT, WORD, everything, telling
from suites.support.three_containers import EACH_FAMILY, ThreeContainers, both_families

CLOSED, VAULT, OPEN = "closed", "vault", "open"
ALIAS: Final = "neighbour"
CONTROL: Final = b"from where it is allowed"
STUB: Final = IPv4Address("127.0.0.53")
"""Where a machine may have a resolver of its own, as with systemd-resolved."""


@pytest.fixture(scope="module")
def closed(world: World, runtime: Adapter) -> Iterator[Scene]:
    """`a` and `b` on an internal network, `c` on another, `d` on one that leads out.

    So is `e`, on one on which names outside are known.

    Look, do not change.
    """
    dual = has_ipv6(runtime)
    named = (ALIAS,) if Feature.DNS in runtime.features else ()
    networks = [NetworkSpec(name, ipv6=dual, internal=True) for name in (CLOSED, VAULT)]
    plan = Plan(
        networks=(*networks, NetworkSpec(OPEN, ipv6=dual)),
        containers=(
            ContainerSpec("a", Bridge(CLOSED)),
            ContainerSpec("b", Bridge(CLOSED), aliases=named),
            ContainerSpec("c", Bridge(VAULT)),
            ContainerSpec("d", Bridge(OPEN)),
            ContainerSpec("e", with_names(runtime, OPEN)),
        ),
    )
    with Scene(world, runtime, plan) as made:
        yield made


@requirement("INT-1", "NET-2")
def test_peers_and_the_bridge_answer_and_nothing_else(closed: Scene) -> None:
    """In either direction, from another internal network as little as from anywhere."""
    assert closed.observed() == closed.promised()


@requirement("INT-1")
@both_families
def test_there_is_no_default_route(closed: Scene, family: Family) -> None:
    """Only the subnet is routed."""
    gateways = closed.runtime.network_facts(CLOSED).gateways
    inside = [item.destination for item in closed["a"].net.routes() if item.family == family]
    assert inside == [pick(gateways, family).network]


@requirement("INT-1", "NET-3")
def test_who_is_on_no_other_network_any_more_is_kept_in(scene: Scene) -> None:
    """Connected to it while there was another that led out, and taken off that one."""
    six = has_ipv6(scene.runtime)
    scene.network("leading-out", ipv6=six)
    scene.network("shut", ipv6=six, internal=True)
    scene.containers(x=Bridge("leading-out"), y=Bridge("shut"))
    scene.connect("x", "shut")
    assert any(route.destination is None for route in scene["x"].net.routes())
    scene.disconnect("x", "leading-out")
    assert not any(route.destination is None for route in scene["x"].net.routes())
    for row in (scene.promised().select(source="x"), scene.promised().select(family=4)):
        assert scene.observed(row) == row


@requirement("INT-1", "LIFE-7")
def test_who_is_started_again_is_kept_in_too(scene: Scene) -> None:
    """It has no default route, and reaches its peers alone."""
    dual = has_ipv6(scene.runtime)
    scene.network("shut", internal=True, ipv6=dual)
    scene.containers(x=Bridge("shut"), y=Bridge("shut"))
    scene["x"].stop()
    scene.start("x")
    assert [route for route in scene["x"].net.routes() if route.destination is None] == []
    assert scene.observed() == scene.promised()


@pytest.fixture(params=EACH_FAMILY)
def shut(
    closed: Scene, wires: TapPool, request: pytest.FixtureRequest
) -> Iterator[ThreeContainers]:
    """The internal network of `a` and `b`, as one address family has it."""
    with TapPool() as own:
        yield ThreeContainers(closed, request.param, CLOSED, wires, own)


@requirement("INT-1")
def test_nothing_of_any_protocol_leaves(shut: ThreeContainers) -> None:
    """Whoever is meant, and whatever it is, though it is the bridge's MAC that it is sent to."""
    outside = (NS1, HOST, "c", "d")
    head = Ether(src=shut.mac("a"), dst=shut.mac(GATEWAY))
    with shut.capture("a", *outside) as wire:
        for target in (NS1, INTERNET, "c", "d"):
            packets = everything(shut, "a", target)
            send_frame(shut.place("a"), *(head / packet for packet in packets))
        for caller, target in (("d", NS1), ("d", INTERNET), (GATEWAY, "c"), (GATEWAY, "d")):
            with shut.call(caller, target, Protocol.UDP, port=PORT) as call:
                call.say(CONTROL)
    assert telling(wire, shut, "a", at="a")
    for name in outside:
        seen = wire.frames(at=shut.at(name))
        assert [frame for frame in seen if CONTROL in frame.data], f"nothing was seen at {name}"
        assert [str(frame) for frame in seen if WORD in frame.data] == []


# --- names ---------------------------------------------------------------------------


@requirement("INT-3", "NET-4")
@both_families
@pytest.mark.parametrize("name", ["b", ALIAS])
def test_peers_resolve_each_other(closed: Scene, name: str, family: Family) -> None:
    """By name and alias, as fast as anywhere; those of another internal network do not."""
    own = held(closed, "b", family)
    for asker in ("a", "b"):
        assert resolved(closed, asker, name, family) == own
    assert looked_up(closed, "c", name, family).addresses == set()


@requirement("INT-3")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_their_resolver_answers_over_both_transports(closed: Scene, transport: Transport) -> None:
    """Over TCP as over UDP."""
    answer = lookup.ask(closed["a"], "b", transport=transport)
    assert lookup.told(answer) == set(map(str, held(closed, "b", 4)))


@requirement("INT-2")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "ANY"])
def test_a_name_is_not_asked_for_outside(closed: Scene, transport: Transport, kind: str) -> None:
    """No resolver in the world hears of it, whatever is asked, by the resolver of the container."""
    name = unheard_of()
    since = closed.world.services.mark()
    asked_by_resolver(closed, "a", name, kind, transport=transport)
    asked_by_resolver(closed, "e", f"control.{name}", kind, transport=transport)
    assert [item.name for item in heard(closed, since, name)] == [f"control.{name}"]


@requirement("INT-2")
def test_nor_by_the_c_library(closed: Scene) -> None:
    """It is told that there is no such name."""
    names = [WWW, unheard_of(), "203.0.113.10.in-addr.arpa", "b.example.com"]
    since = closed.world.services.mark()
    for name in names:
        for family in (*FAMILIES, None):
            assert looked_up(closed, "a", name, family).addresses == set()
    for address in (pick(closed.world.topology.internet, family).ip for family in FAMILIES):
        assert lookup.name_of(closed.world.host, closed["a"], address) == ""
    assert closed.world.services.asked(since) == []
    assert looked_up(closed, "e", names[1], 4).addresses
    assert heard(closed, since, names[1])


@requirement("INT-2")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("whom", ["the internet's", "the bridge's", "the host's"])
@pytest.mark.parametrize("family", [4, pytest.param(6, marks=requirement("V6-1"))])
def test_whoever_is_asked_by_address_does_not_hear_of_it(
    closed: Scene, family: Family, whom: str, transport: Transport
) -> None:
    """Neither the resolver of the internet, nor another by way of the host."""
    name, since = unheard_of(), closed.world.services.mark()
    server = {
        "the internet's": pick(closed.world.topology.resolver, family).ip,
        "the bridge's": pick(closed.runtime.network_facts(CLOSED).gateways, family).ip,
        "the host's": pick(closed.world.topology.host, family).ip,
    }[whom]
    asked_by_resolver(closed, "a", name, KINDS[family], transport=transport, of=server)
    outside = pick(closed.world.topology.resolver, family).ip
    lookup.ask(closed["d"], f"control.{name}", KINDS[family], transport=transport, of=outside)
    assert [item.name for item in heard(closed, since, name)] == [f"control.{name}"]


@requirement("INT-2")
def test_no_query_leaves_the_host(closed: Scene, host: NetnsView) -> None:
    """On its uplink nothing is seen of what is asked inside; what others ask is."""
    with host.capture("eth0") as wire:
        for transport in TRANSPORTS:
            asked_by_resolver(closed, "a", unheard_of(), "A", transport=transport)
        looked_up(closed, "a", unheard_of())
        closed.settle()
        wire.expect_none(UDP(dport=53), TCP(dport=53))
        looked_up(closed, "e", unheard_of(), 4)
        assert wire.matching(UDP(dport=53))


@requirement("INT-2")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_resolver_on_the_hosts_loopback_does_not_hear_of_it(
    scene: Scene, world: World, when: str
) -> None:
    """Which the host would ask, in the container's stead (CVE-2024-29018)."""
    names = [unheard_of() for _ in range(3)]
    spaces = {HOST: (world.namespaces[HOST], [STUB])}
    scene.network("shut", internal=True)
    if when == "before":
        scene.containers(x=Bridge("shut"))
    with (
        Services.start(spaces, topology=world.topology) as stub,
        saying(world.host, f"nameserver {STUB}\n"),
    ):
        if when == "after":
            scene.containers(x=Bridge("shut"))
        since = world.services.mark()
        for transport in TRANSPORTS:
            asked_by_resolver(scene, "x", names[0], "A", transport=transport)
        looked_up(scene, "x", names[1])
        assert world.host.call(lookup.by_name, names[2], 4).addresses
        assert {item.name for item in stub.asked()} == {names[2]}
        assert heard(scene, since, *names) == []


@requirement("INT-2")
def test_a_resolver_that_was_asked_for_is_out_of_reach(scene: Scene, world: World) -> None:
    """Where it is outside, it is asked neither by the container nor on its behalf."""
    outside = pick(world.topology.resolver, 4).ip
    scene.network("shut", internal=True)
    scene.network("leading-out")
    scene.container("x", Bridge("shut"), dns=(outside,))
    scene.container("y", with_names(scene.runtime, "leading-out"), dns=(outside,))
    name, since = unheard_of(), world.services.mark()
    assert looked_up(scene, "x", name, 4).addresses == set()
    for transport in TRANSPORTS:
        asked_by_resolver(scene, "x", name, "A", transport=transport)
    assert looked_up(scene, "y", f"control.{name}", 4).addresses
    assert {item.name for item in heard(scene, since, name)} == {f"control.{name}"}


@requirement("INT-2", "NET-3")
def test_a_network_that_leads_out_makes_the_difference(scene: Scene) -> None:
    """Connected to one besides, a container's names are asked for; taken off it, no more."""
    scene.network("shut", internal=True)
    scene.network("leading-out")
    scene.containers(x=Bridge("shut"))
    for connected in (False, True, False):
        name, since = unheard_of(), scene.world.services.mark()
        assert bool(looked_up(scene, "x", name, 4).addresses) == connected
        assert bool(heard(scene, since, name)) == connected
        if connected:
            scene.disconnect("x", "leading-out")
        else:
            scene.connect("x", "leading-out")


def asked_by_resolver(
    scene: Scene, asker: str, name: str, kind: str, *, of: Address | None = None, **options: Any
) -> None:
    """Ask a resolver inside, if there is one to ask; whatever comes of it."""
    if of is None and not nameservers(scene[asker].read(RESOLV_CONF)):
        return
    try:
        lookup.ask(scene[asker], name, kind, of=of, **options)
    except (OSError, dns.exception.Timeout):
        return  # out of reach, or silent
