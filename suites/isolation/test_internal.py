"""Internal networks, which no packet or DNS query of a container leaves."""

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
from harness.testbench.lookup import RESOLV_CONF, host_file
from harness.testbench.netns_view import NetnsView
from harness.testbench.packets.capture import TapPool
from harness.testbench.packets.craft import send_frame
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.services import Services
from suites.support.dns import KINDS, fresh_name, held, looked_up, received, resolved, with_names
from suites.support.features import has_ipv6
from suites.support.packet_kinds import PORT, WORD, carrying, everything
from suites.support.three_containers import EACH_FAMILY, ThreeContainers, both_families

CLOSED, VAULT, OPEN = "closed", "vault", "open"
ALIAS: Final = "neighbour"
CONTROL: Final = b"from where it is allowed"
STUB: Final = IPv4Address("127.0.0.53")
"""Address of a local stub resolver such as systemd-resolved."""


@pytest.fixture(scope="module")
def internal_scene(world: World, runtime: Adapter) -> Iterator[Scene]:
    """Share containers on internal and other networks; tests must not change them.

    `a` and `b` are on an internal network, `c` is on another internal one, and `d` is on an open
    one. `e` is on a network whose resolver knows outside names.
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
def test_container_on_internal_network_reaches_only_peers_and_bridge(internal_scene: Scene) -> None:
    """A container on an internal network reaches only its peers and the bridge.

    The container is unreachable from everywhere else, including from another internal network.
    """
    assert internal_scene.observed() == internal_scene.promised()


@requirement("INT-1")
@both_families
def test_internal_network_has_no_default_route(internal_scene: Scene, family: Family) -> None:
    """A container on an internal network has a route for the subnet and no default route."""
    gateways = internal_scene.runtime.network_facts(CLOSED).gateways
    inside = [
        item.destination for item in internal_scene["a"].net.routes() if item.family == family
    ]
    assert inside == [pick(gateways, family).network]


@requirement("INT-1", "NET-3")
def test_container_is_isolated_when_only_its_internal_network_remains(scene: Scene) -> None:
    """A container that leaves its open network and keeps an internal one is isolated afterwards."""
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
def test_restarted_container_on_internal_network_is_isolated(scene: Scene) -> None:
    """A restarted container on an internal network reaches only its peers and the bridge.

    The container has no default route.
    """
    dual = has_ipv6(scene.runtime)
    scene.network("shut", internal=True, ipv6=dual)
    scene.containers(x=Bridge("shut"), y=Bridge("shut"))
    scene["x"].stop()
    scene.start("x")
    assert [route for route in scene["x"].net.routes() if route.destination is None] == []
    assert scene.observed() == scene.promised()


@pytest.fixture(params=EACH_FAMILY)
def internal_trio(
    internal_scene: Scene, wires: TapPool, request: pytest.FixtureRequest
) -> Iterator[ThreeContainers]:
    """Return `a` and `b` and their internal network, tested in one address family."""
    with TapPool() as own:
        yield ThreeContainers(internal_scene, request.param, CLOSED, wires, own)


@requirement("INT-1")
def test_packets_of_every_protocol_stay_on_internal_network(internal_trio: ThreeContainers) -> None:
    """Packets that a container sends to an internal network's gateway do not leave the network.

    The packets are of every protocol.
    """
    outside = (NS1, HOST, "c", "d")
    head = Ether(src=internal_trio.mac("a"), dst=internal_trio.mac(GATEWAY))
    with internal_trio.capture("a", *outside) as wire:
        for target in (NS1, INTERNET, "c", "d"):
            packets = everything(internal_trio, "a", target)
            send_frame(internal_trio.netns("a"), *(head / packet for packet in packets))
        for caller, target in (("d", NS1), ("d", INTERNET), (GATEWAY, "c"), (GATEWAY, "d")):
            with internal_trio.client(caller, target, Protocol.UDP, port=PORT) as call:
                call.send(CONTROL)
    assert carrying(wire, internal_trio, "a", at="a")
    for name in outside:
        seen = wire.frames(at=internal_trio.at(name))
        assert [frame for frame in seen if CONTROL in frame.data], (
            f"the control packet is not captured at {name}"
        )
        assert [str(frame) for frame in seen if WORD in frame.data] == []


# --- names ---------------------------------------------------------------------------


@requirement("INT-3", "NET-4")
@both_families
@pytest.mark.parametrize("name", ["b", ALIAS], ids=["name", "alias"])
def test_peers_resolve_each_other_on_internal_network(
    internal_scene: Scene, name: str, family: Family
) -> None:
    """Peers on an internal network resolve each other by name and alias.

    Names of another internal network are unknown.
    """
    own = held(internal_scene, "b", family)
    for asker in ("a", "b"):
        assert resolved(internal_scene, asker, name, family) == own
    assert looked_up(internal_scene, "c", name, family).addresses == set()


@requirement("INT-3")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_resolver_answers_on_internal_network(internal_scene: Scene, transport: Transport) -> None:
    """An internal network's resolver answers queries for a peer's name, over UDP and TCP."""
    answer = lookup.query(internal_scene["a"], "b", transport=transport)
    assert lookup.values(answer) == set(map(str, held(internal_scene, "b", 4)))


@requirement("INT-2")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "ANY"])
def test_resolver_forwards_no_query_of_internal_network(
    internal_scene: Scene, transport: Transport, kind: str
) -> None:
    """An internal network's resolver forwards no query of any type to an outside resolver."""
    name = fresh_name()
    since = internal_scene.world.services.mark()
    asked_by_resolver(internal_scene, "a", name, kind, transport=transport)
    asked_by_resolver(internal_scene, "e", f"control.{name}", kind, transport=transport)
    assert [item.name for item in received(internal_scene, since, name)] == [f"control.{name}"]


@requirement("INT-2")
def test_c_library_queries_no_outside_resolver_from_internal_network(internal_scene: Scene) -> None:
    """On an internal network, the C library finds no outside name and queries no outside server."""
    names = [WWW, fresh_name(), "203.0.113.10.in-addr.arpa", "b.example.com"]
    since = internal_scene.world.services.mark()
    for name in names:
        for family in (*FAMILIES, None):
            assert looked_up(internal_scene, "a", name, family).addresses == set()
    for address in (pick(internal_scene.world.topology.internet, family).ip for family in FAMILIES):
        assert lookup.name_of(internal_scene.world.host, internal_scene["a"], address) == ""
    assert internal_scene.world.services.queries(since) == []
    assert looked_up(internal_scene, "e", names[1], 4).addresses
    assert received(internal_scene, since, names[1])


@requirement("INT-2")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("whom", ["internet", "bridge", "host"])
@both_families
def test_direct_queries_do_not_leave_internal_network(
    internal_scene: Scene, family: Family, whom: str, transport: Transport
) -> None:
    """A direct query from an internal network reaches no resolver on the internet.

    The client sends it to the internet's resolver, the bridge's address or the host's address.
    """
    name, since = fresh_name(), internal_scene.world.services.mark()
    server = {
        "internet": pick(internal_scene.world.topology.resolver, family).ip,
        "bridge": pick(internal_scene.runtime.network_facts(CLOSED).gateways, family).ip,
        "host": pick(internal_scene.world.topology.host, family).ip,
    }[whom]
    asked_by_resolver(internal_scene, "a", name, KINDS[family], transport=transport, of=server)
    outside = pick(internal_scene.world.topology.resolver, family).ip
    lookup.query(
        internal_scene["d"], f"control.{name}", KINDS[family], transport=transport, of=outside
    )
    assert [item.name for item in received(internal_scene, since, name)] == [f"control.{name}"]


@requirement("INT-2")
def test_no_query_of_internal_network_leaves_by_the_uplink(
    internal_scene: Scene, host: NetnsView
) -> None:
    """The host's uplink carries no DNS query of a container on an internal network."""
    with host.capture("eth0") as wire:
        for transport in TRANSPORTS:
            asked_by_resolver(internal_scene, "a", fresh_name(), "A", transport=transport)
        looked_up(internal_scene, "a", fresh_name())
        internal_scene.settle()
        wire.expect_none(UDP(dport=53), TCP(dport=53))
        looked_up(internal_scene, "e", fresh_name(), 4)
        assert wire.matching(UDP(dport=53))


@requirement("INT-2")
@pytest.mark.parametrize("when", ["before", "after"], ids=["container-first", "stub-first"])
def test_host_stub_resolver_receives_no_query_of_internal_network(
    scene: Scene, world: World, when: str
) -> None:
    """The host's stub resolver receives no query of an internal network (CVE-2024-29018).

    The runtime's resolver runs on the host, and could query the stub for the container.
    """
    names = [fresh_name() for _ in range(3)]
    spaces = {HOST: (world.namespaces[HOST], [STUB])}
    scene.network("shut", internal=True)
    if when == "before":
        scene.containers(x=Bridge("shut"))
    with (
        Services.start(spaces, topology=world.topology) as stub,
        host_file(world.host, f"nameserver {STUB}\n"),
    ):
        if when == "after":
            scene.containers(x=Bridge("shut"))
        since = world.services.mark()
        for transport in TRANSPORTS:
            asked_by_resolver(scene, "x", names[0], "A", transport=transport)
        looked_up(scene, "x", names[1])
        assert world.host.call(lookup.by_name, names[2], 4).addresses
        assert {item.name for item in stub.queries()} == {names[2]}
        assert received(scene, since, *names) == []


@requirement("INT-2")
def test_requested_outside_resolver_is_unreachable_from_internal_network(
    scene: Scene, world: World
) -> None:
    """A requested outside resolver receives no query of a container on an internal network.

    The runtime does not query that resolver for the container either.
    """
    outside = pick(world.topology.resolver, 4).ip
    scene.network("shut", internal=True)
    scene.network("leading-out")
    scene.container("x", Bridge("shut"), dns=(outside,))
    scene.container("y", with_names(scene.runtime, "leading-out"), dns=(outside,))
    name, since = fresh_name(), world.services.mark()
    assert looked_up(scene, "x", name, 4).addresses == set()
    for transport in TRANSPORTS:
        asked_by_resolver(scene, "x", name, "A", transport=transport)
    assert looked_up(scene, "y", f"control.{name}", 4).addresses
    assert {item.name for item in received(scene, since, name)} == {f"control.{name}"}


@requirement("INT-2", "NET-3")
def test_outside_names_resolve_only_while_connected_to_open_network(scene: Scene) -> None:
    """A container on an internal network resolves outside names only while also on an open one."""
    scene.network("shut", internal=True)
    scene.network("leading-out")
    scene.containers(x=Bridge("shut"))
    for connected in (False, True, False):
        name, since = fresh_name(), scene.world.services.mark()
        assert bool(looked_up(scene, "x", name, 4).addresses) == connected
        assert bool(received(scene, since, name)) == connected
        if connected:
            scene.disconnect("x", "leading-out")
        else:
            scene.connect("x", "leading-out")


def asked_by_resolver(
    scene: Scene, asker: str, name: str, kind: str, *, of: Address | None = None, **options: Any
) -> None:
    """Query the container's resolver, if it has one, and ignore the result."""
    if of is None and not nameservers(scene[asker].read(RESOLV_CONF)):
        return
    try:
        lookup.query(scene[asker], name, kind, of=of, **options)
    except (OSError, dns.exception.Timeout):
        return  # unreachable, or no response
