"""The resolver that a container's resolv.conf names, queried over UDP and TCP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from ipaddress import IPv4Address
from typing import Final

import dns.flags
import dns.message
import dns.rcode
import pytest

from harness.model.plan import FAMILIES, HOST, NS1, Bridge, Family
from harness.model.topology import WWW, Address, pick
from harness.plugin.fixtures import RuntimeStarter
from harness.plugin.marks import requirement
from harness.testbench import lookup
from harness.testbench.listener import TRANSPORTS, Transport
from harness.testbench.lookup import RESOLV_CONF, host_file
from harness.testbench.netns_view import NetnsView, view_of
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.dns import BIG, BIG_ADDRESSES, BIG_TEXT
from harness.world.services import Services
from suites.dns import LONG
from suites.support.dns import KINDS, fresh_name, looked_up, present, received, resolved
from suites.support.features import restarts

TIMES: Final = 5
"""Number of connections that a client closes early: a failure may depend on timing."""
QUESTIONS: Final = 20
"""Number of queries on one connection, which the client resets at the first response."""

STUB: Final = IPv4Address("127.0.0.53")
"""Address of a local stub resolver such as systemd-resolved."""
BEHIND_STUB: Final = "/run/systemd/resolve/resolv.conf"
"""Upstream servers of systemd-resolved (systemd-resolved(8))."""

everywhere: Final = pytest.mark.parametrize(
    "asker",
    [
        pytest.param("plain", id="bridge"),
        pytest.param("house", id="host", marks=requirement("HOST-4")),
        pytest.param("guest", id="container", marks=requirement("CTR-1")),
        pytest.param("web", id="user-defined", marks=requirement("NET-4")),
        pytest.param("lodger", id="container-on-user-defined", marks=requirement("NET-4", "CTR-1")),
    ],
)
"""Parameters: a container in each mode that has a route to a resolver."""


@requirement("DNS-1")
@everywhere
@pytest.mark.parametrize("family", [4, 6], ids="IPv{}".format)
def test_internet_name_resolves_inside_container(
    dns_scene: Scene, asker: str, family: Family
) -> None:
    """A container resolves the name of an internet host to the host's address, in each family.

    The world's name server receives the query.
    """
    since = dns_scene.world.services.mark()
    address = pick(dns_scene.world.topology.internet, family).ip
    for name in (WWW, fresh_name()):
        assert resolved(dns_scene, asker, name, family) == {address}
        assert {item.type for item in received(dns_scene, since, name)} == {KINDS[family]}


@requirement("DNS-1")
@everywhere
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_resolver_answers_every_record_type_and_name_length(
    dns_scene: Scene, asker: str, transport: Transport
) -> None:
    """The resolver answers queries for other record types than addresses, and for long names.

    A query for an unknown name returns NXDOMAIN.
    """
    web = pick(dns_scene.world.topology.internet, 4).ip
    for name, kind, value in (
        ("example.com", "NS", "dns.example.com."),
        (web.reverse_pointer, "PTR", f"{WWW}."),
        (f"{LONG}.{LONG}.{LONG}.{fresh_name()}", "A", str(web)),
    ):
        answer = lookup.query(dns_scene[asker], name, kind, transport=transport)
        assert (lookup.rcode(answer), value in lookup.values(answer)) == ("NOERROR", True)
    answer = lookup.query(dns_scene[asker], "missing.example.com", transport=transport)
    assert lookup.rcode(answer) == "NXDOMAIN"


@requirement("DNS-1")
@everywhere
def test_concurrent_a_and_aaaa_queries_are_answered(dns_scene: Scene, asker: str) -> None:
    """The resolver answers an A and an AAAA query that a client sends at once from one socket.

    The C library's getaddrinfo(3) sends such pairs.
    """
    wanted = [{str(pick(dns_scene.world.topology.internet, family).ip)} for family in FAMILIES]
    answers = lookup.query_concurrently(
        dns_scene[asker], fresh_name(), [KINDS[item] for item in FAMILIES]
    )
    assert [lookup.values(answer) for answer in answers] == wanted


networks: Final = pytest.mark.parametrize(
    "network",
    [
        pytest.param("", id="bridge"),
        pytest.param("own", id="user-defined", marks=requirement("NET-4")),
    ],
)


@requirement("DNS-1")
@networks
def test_only_requested_resolver_receives_queries(world: World, scene: Scene, network: str) -> None:
    """A container's queries reach the resolver that the user requested, and no other resolver."""
    own = pick(world.topology.ns1, 4).ip
    with name_server(world, NS1, own) as server:
        scene.container("asker", mode(scene, network), dns=(own,))
        name, since = fresh_name(), world.services.mark()
        assert resolved(scene, "asker", name, 4) == {pick(world.topology.internet, 4).ip}
        assert {item.name for item in server.queries()} == {name}
        assert received(scene, since, name) == []


@requirement("DNS-1")
@networks
def test_names_resolve_when_host_uses_loopback_stub_resolver(
    start_runtime: RuntimeStarter, network: str
) -> None:
    """Containers resolve names on a host whose stub resolver listens only on the loopback.

    The stub exists before the runtime starts, because some runtimes look for a stub only then.
    """
    with World.build() as world:
        outside = world.host.call(_text, RESOLV_CONF)
        with (
            name_server(world, HOST, STUB),
            host_file(world.host, f"nameserver {STUB}\n"),
            host_file(world.host, outside, BEHIND_STUB),
            start_runtime(world) as runtime,
            Scene(world, runtime) as scene,
        ):
            scene.container("asker", mode(scene, network))
            for family in FAMILIES:
                address = pick(world.topology.internet, family).ip
                assert resolved(scene, "asker", fresh_name(), family) == {address}


@requirement("DNS-1")
@networks
def test_names_resolve_without_ipv6_when_host_lists_ipv6_resolver_first(
    world: World, scene: Scene, network: str
) -> None:
    """A container without IPv6 resolves names although the host lists an IPv6 resolver first."""
    first, second = (pick(world.topology.resolver, family).ip for family in (6, 4))
    with host_file(world.host, f"nameserver {first}\nnameserver {second}\n"):
        scene.container("asker", mode(scene, network))
        for family in FAMILIES:
            address = pick(world.topology.internet, family).ip
            assert looked_up(scene, "asker", fresh_name(), family).addresses == {address}


@requirement("DNS-1")
@networks
@pytest.mark.parametrize("first", ["no-listener", "SERVFAIL"])
def test_container_queries_second_resolver_when_first_fails(
    world: World, scene: Scene, network: str, first: str
) -> None:
    """A container queries its second resolver if the first does not listen or answers SERVFAIL."""
    failing, fine = pick(world.topology.ns1, 4).ip, pick(world.topology.resolver, 4).ip
    with failing_server(view_of(world, NS1), failing) if first == "SERVFAIL" else nullcontext():
        scene.container("asker", mode(scene, network), dns=(failing, fine))
        for family in FAMILIES:
            address = pick(world.topology.internet, family).ip
            assert looked_up(scene, "asker", fresh_name(), family).addresses == {address}


@requirement("DNS-1", "DNS-4", "NET-3")
def test_container_queries_second_resolver_after_connect_and_restart(
    world: World, scene: Scene
) -> None:
    """A container queries its second resolver after connect and after restart, over UDP and TCP.

    The first of its two requested resolvers does not listen.
    """
    unused, own = (pick(there, 4).ip for there in (world.topology.ns2, world.topology.ns1))
    address = pick(world.topology.internet, 4).ip
    network = scene.network("town").name
    with name_server(world, NS1, own) as server:
        asker = scene.container("asker", dns=(unused, own))
        scene.connect("asker", network)
        for again in (False, True) if restarts(scene.runtime) else (False,):
            if again:
                asker.stop()
                asker.start()
            name, since = fresh_name(), world.services.mark()
            assert looked_up(scene, "asker", name, 4).addresses == {address}
            assert looked_up(scene, "asker", BIG, 4).addresses == frozenset(BIG_ADDRESSES)
            assert name in {item.name for item in server.queries()}
            assert received(scene, since, name, BIG) == []


@requirement("DNS-1", "LIFE-7")
@networks
def test_internet_names_resolve_after_restart(scene: Scene, network: str) -> None:
    """A restarted container resolves internet names."""
    asker = scene.container("asker", mode(scene, network))
    asker.stop()
    asker.start()
    for family in FAMILIES:
        address = pick(scene.world.topology.internet, family).ip
        assert resolved(scene, "asker", fresh_name(), family) == {address}


@requirement("DNS-1")
@everywhere
def test_resolver_answers_after_a_client_closes_its_connection_early(
    dns_scene: Scene, asker: str
) -> None:
    """After a client closes its TCP connection early, the resolver still answers all containers."""
    for _ in range(TIMES):
        lookup.abandon_queries(dns_scene[asker], fresh_name(), questions=QUESTIONS)
    address = pick(dns_scene.world.topology.internet, 4).ip
    for other in present(dns_scene, asker, "plain", "web"):
        assert resolved(dns_scene, other, fresh_name(), 4) == {address}


def mode(scene: Scene, network: str) -> Bridge:
    """Return the mode for a new network of this name, or for the default network if it is empty."""
    return Bridge(scene.network(network).name) if network else Bridge()


# --- truncated responses -----------------------------------------------------------------


@requirement("DNS-4")
@everywhere
def test_c_library_repeats_query_over_tcp_after_truncated_response(
    dns_scene: Scene, asker: str
) -> None:
    """The C library gets every address of a name whose response exceeds one datagram."""
    since = dns_scene.world.services.mark()
    assert looked_up(dns_scene, asker, BIG, 4).addresses == frozenset(BIG_ADDRESSES)
    assert {item.transport for item in received(dns_scene, since, BIG)} == {"udp", "tcp"}


@requirement("DNS-4")
@everywhere
@pytest.mark.parametrize("kind", ["A", "TXT"])
def test_truncated_response_has_tc_flag(dns_scene: Scene, asker: str, kind: str) -> None:
    """A truncated response has the TC flag (RFC 2181, 9), and the TCP response is complete."""
    values = {
        "A": set(map(str, BIG_ADDRESSES)),
        "TXT": {" ".join(f'"{text}"' for text in BIG_TEXT)},
    }[kind]
    cut = lookup.query(dns_scene[asker], BIG, kind)
    assert cut.flags & dns.flags.TC or lookup.values(cut) == values
    whole = lookup.query(dns_scene[asker], BIG, kind, transport="tcp")
    assert lookup.values(whole) == values
    assert not whole.flags & dns.flags.TC


# --- name servers of single tests ----------------------------------------------------------


def name_server(world: World, name: str, address: Address) -> Services:
    """Run a second name server for the world's names in a namespace, and record its queries."""
    spaces = world.namespaces
    return Services.start({name: (spaces[name], [address])}, topology=world.topology)


@contextmanager
def failing_server(view: NetnsView, address: Address) -> Iterator[None]:
    """Run a name server that answers every query with SERVFAIL (RFC 1035, 4.1.1)."""
    with view.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((str(address), 53))
        answering = threading.Thread(target=_answer_servfail, args=(opened,))
        answering.start()
        try:
            yield
        finally:
            with suppress(
                OSError
            ):  # shutdown() of an unconnected socket fails, but wakes the receiver
                opened.shutdown(socket.SHUT_RDWR)
            answering.join()


def _answer_servfail(opened: socket.socket) -> None:
    while True:
        question, asker = opened.recvfrom(4096)
        if not question:
            return
        answer = dns.message.make_response(dns.message.from_wire(question))
        answer.set_rcode(dns.rcode.SERVFAIL)
        opened.sendto(answer.to_wire(), asker)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
