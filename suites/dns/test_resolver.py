"""The resolver that a container is told of: it answers, over UDP and TCP, whatever is asked."""

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
from harness.testbench.lookup import RESOLV_CONF, saying
from harness.testbench.netns_view import NetnsView, view_of
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.dns import BIG, BIG_ADDRESSES, BIG_TEXT
from harness.world.services import Services
from suites.dns import LONG
from suites.support.dns import KINDS, heard, looked_up, present, resolved, unheard_of
from suites.support.features import restarts

TIMES: Final = 5
"""How often somebody hangs up: what comes of it may depend on who is told first."""
QUESTIONS: Final = 20
"""Of one connection: the answer to the first is refused by who has gone, the others meet that."""

STUB: Final = IPv4Address("127.0.0.53")
"""Where a machine may have a resolver of its own, as with systemd-resolved."""
BEHIND_STUB: Final = "/run/systemd/resolve/resolv.conf"
"""Where systemd-resolved tells whom it asks itself (systemd-resolved(8))."""

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
"""In every mode from which there is a way to a resolver."""


@requirement("DNS-1")
@everywhere
@pytest.mark.parametrize("family", [4, 6])
def test_a_name_outside_is_answered(town: Scene, asker: str, family: Family) -> None:
    """With the address that it has in either family; the world's name server was asked."""
    since = town.world.services.mark()
    address = pick(town.world.topology.internet, family).ip
    for name in (WWW, unheard_of()):
        assert resolved(town, asker, name, family) == {address}
        assert {item.type for item in heard(town, since, name)} == {KINDS[family]}


@requirement("DNS-1")
@everywhere
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_whatever_is_asked_is_answered(town: Scene, asker: str, transport: Transport) -> None:
    """Other records, and long names, over UDP and TCP; what does not exist is said not to."""
    web = pick(town.world.topology.internet, 4).ip
    for name, kind, value in (
        ("example.com", "NS", "dns.example.com."),
        (web.reverse_pointer, "PTR", f"{WWW}."),
        (f"{LONG}.{LONG}.{LONG}.{unheard_of()}", "A", str(web)),
    ):
        answer = lookup.ask(town[asker], name, kind, transport=transport)
        assert (lookup.rcode(answer), value in lookup.told(answer)) == ("NOERROR", True)
    answer = lookup.ask(town[asker], "nobody.example.com", transport=transport)
    assert lookup.rcode(answer) == "NXDOMAIN"


@requirement("DNS-1")
@everywhere
def test_both_families_may_be_asked_for_at_once(town: Scene, asker: str) -> None:
    """From one socket, before either is answered, as the C library does."""
    wanted = [{str(pick(town.world.topology.internet, family).ip)} for family in FAMILIES]
    answers = lookup.ask_at_once(town[asker], unheard_of(), [KINDS[item] for item in FAMILIES])
    assert [lookup.told(answer) for answer in answers] == wanted


networks: Final = pytest.mark.parametrize(
    "network",
    [
        pytest.param("", id="bridge"),
        pytest.param("own", id="user-defined", marks=requirement("NET-4")),
    ],
)


@requirement("DNS-1")
@networks
def test_a_resolver_that_was_asked_for_is_the_one_that_is_asked(
    world: World, scene: Scene, network: str
) -> None:
    """And no other is told the question."""
    own = pick(world.topology.ns1, 4).ip
    with name_server(world, NS1, own) as server:
        scene.container("asker", mode(scene, network), dns=(own,))
        name, since = unheard_of(), world.services.mark()
        assert resolved(scene, "asker", name, 4) == {pick(world.topology.internet, 4).ip}
        assert {item.name for item in server.asked()} == {name}
        assert heard(scene, since, name) == []


@requirement("DNS-1")
@networks
def test_a_resolver_on_the_hosts_loopback_is_got_round(
    start_runtime: RuntimeStarter, network: str
) -> None:
    """Names are answered where the host asks a stub of its own, which no container can reach.

    The stub is there before the runtime starts, which may look for one only then.
    """
    with World.build() as world:
        outside = world.host.call(_text, RESOLV_CONF)
        with (
            name_server(world, HOST, STUB),
            saying(world.host, f"nameserver {STUB}\n"),
            saying(world.host, outside, BEHIND_STUB),
            start_runtime(world) as runtime,
            Scene(world, runtime) as scene,
        ):
            scene.container("asker", mode(scene, network))
            for family in FAMILIES:
                address = pick(world.topology.internet, family).ip
                assert resolved(scene, "asker", unheard_of(), family) == {address}


@requirement("DNS-1")
@networks
def test_a_resolver_with_an_ipv6_address_alone_is_no_hindrance(
    world: World, scene: Scene, network: str
) -> None:
    """Where the host names one first, and the container has no IPv6, names are answered."""
    first, second = (pick(world.topology.resolver, family).ip for family in (6, 4))
    with saying(world.host, f"nameserver {first}\nnameserver {second}\n"):
        scene.container("asker", mode(scene, network))
        for family in FAMILIES:
            address = pick(world.topology.internet, family).ip
            assert looked_up(scene, "asker", unheard_of(), family).addresses == {address}


@requirement("DNS-1")
@networks
@pytest.mark.parametrize("first", ["not there", "giving up"])
def test_of_two_resolvers_one_may_fail(
    world: World, scene: Scene, network: str, first: str
) -> None:
    """Names are answered by the second, where nobody is at the first or that answers SERVFAIL."""
    failing, fine = pick(world.topology.ns1, 4).ip, pick(world.topology.resolver, 4).ip
    with giving_up(view_of(world, NS1), failing) if first == "giving up" else nullcontext():
        scene.container("asker", mode(scene, network), dns=(failing, fine))
        for family in FAMILIES:
            address = pick(world.topology.internet, family).ip
            assert looked_up(scene, "asker", unheard_of(), family).addresses == {address}


@requirement("DNS-1", "DNS-4", "NET-3")
def test_so_it_is_by_who_has_been_connected_and_started_again(world: World, scene: Scene) -> None:
    """Of two that were asked for the second, where nobody is at the first; over TCP too."""
    nobody, own = (pick(there, 4).ip for there in (world.topology.ns2, world.topology.ns1))
    address = pick(world.topology.internet, 4).ip
    network = scene.network("town").name
    with name_server(world, NS1, own) as server:
        asker = scene.container("asker", dns=(nobody, own))
        scene.connect("asker", network)
        for again in (False, True) if restarts(scene.runtime) else (False,):
            if again:
                asker.stop()
                asker.start()
            name, since = unheard_of(), world.services.mark()
            assert looked_up(scene, "asker", name, 4).addresses == {address}
            assert looked_up(scene, "asker", BIG, 4).addresses == frozenset(BIG_ADDRESSES)
            assert name in {item.name for item in server.asked()}
            assert heard(scene, since, name, BIG) == []


@requirement("DNS-1", "LIFE-7")
@networks
def test_started_again_it_is_answered_too(scene: Scene, network: str) -> None:
    """By a resolver that it is told of now."""
    asker = scene.container("asker", mode(scene, network))
    asker.stop()
    asker.start()
    for family in FAMILIES:
        address = pick(scene.world.topology.internet, family).ip
        assert resolved(scene, "asker", unheard_of(), family) == {address}


@requirement("DNS-1")
@everywhere
def test_who_hangs_up_takes_nobodys_answers(town: Scene, asker: str) -> None:
    """Whoever asks after a client that waited for no answer is answered, here and elsewhere."""
    for _ in range(TIMES):
        lookup.hang_up(town[asker], unheard_of(), questions=QUESTIONS)
    address = pick(town.world.topology.internet, 4).ip
    for other in present(town, asker, "plain", "web"):
        assert resolved(town, other, unheard_of(), 4) == {address}


def mode(scene: Scene, network: str) -> Bridge:
    """On the default network, or on a new one of that name."""
    return Bridge(scene.network(network).name) if network else Bridge()


# --- what UDP has no room for ----------------------------------------------------------


@requirement("DNS-4")
@everywhere
def test_an_answer_that_was_cut_is_whole_over_tcp(town: Scene, asker: str) -> None:
    """The C library gets every address of a name that has more than a datagram holds."""
    since = town.world.services.mark()
    assert looked_up(town, asker, BIG, 4).addresses == frozenset(BIG_ADDRESSES)
    assert {item.transport for item in heard(town, since, BIG)} == {"udp", "tcp"}


@requirement("DNS-4")
@everywhere
@pytest.mark.parametrize("kind", ["A", "TXT"])
def test_an_answer_that_was_cut_says_so(town: Scene, asker: str, kind: str) -> None:
    """By its TC flag, whoever cut it (RFC 2181, 9); over TCP nothing is missing."""
    values = {
        "A": set(map(str, BIG_ADDRESSES)),
        "TXT": {" ".join(f'"{text}"' for text in BIG_TEXT)},
    }[kind]
    cut = lookup.ask(town[asker], BIG, kind)
    assert cut.flags & dns.flags.TC or lookup.told(cut) == values
    whole = lookup.ask(town[asker], BIG, kind, transport="tcp")
    assert lookup.told(whole) == values
    assert not whole.flags & dns.flags.TC


# --- name servers of a test's own --------------------------------------------------------


def name_server(world: World, place: str, address: Address) -> Services:
    """The world's names, answered in another place too, which keeps what it is asked."""
    spaces = world.namespaces
    return Services.start({place: (spaces[place], [address])}, topology=world.topology)


@contextmanager
def giving_up(place: NetnsView, address: Address) -> Iterator[None]:
    """A name server that answers every question with SERVFAIL (RFC 1035, 4.1.1)."""
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((str(address), 53))
        answering = threading.Thread(target=_give_up, args=(opened,))
        answering.start()
        try:
            yield
        finally:
            with suppress(OSError):  # it is connected to nobody: who waits is woken nevertheless
                opened.shutdown(socket.SHUT_RDWR)
            answering.join()


def _give_up(opened: socket.socket) -> None:
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
