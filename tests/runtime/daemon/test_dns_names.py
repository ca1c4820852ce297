"""Tests of name resolution on user-defined networks."""

from __future__ import annotations

import contextlib
import os
import socket
from ipaddress import ip_address
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from harness.testbench.lookup import by_address, by_name, inside
from runtime.daemon import dns_names
from runtime.engine import Engine
from runtime.store import Store
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import (
    RESOLVER,
    ask,
    connected_to_resolver,
    encoded_queries,
    queried_name,
    rcode,
    replies_on,
    reply_values,
)
from tests.runtime.support.inspection import netns

_AAAA = 28
"""Bytes of a record whose owner is a pointer to the question (RFC 1035, 4.1.4)."""


def test_every_name_of_a_container_resolves(engine: Engine, lan: str) -> None:
    """Name, alias, short id and hostname of a container resolve, in any case.

    Each resolves also with the network's name appended.
    """
    web = engine.run("base", FOR_EVER, name="Web", network=lan, aliases=["www"], hostname="box")
    db = engine.run("base", FOR_EVER, name="db", network=lan)
    for name in ("Web", "web", "WWW", web.id[:12], "box", "web.lan", "www.LAN."):
        assert reply_values(ask(db, name)) == {"10.9.0.2"}, name
        assert reply_values(ask(db, name, "AAAA")) == {"fd00:9::2"}, name
    assert reply_values(ask(web, "web")) == {"10.9.0.2"}


def test_ptr_queries_return_container_names(engine: Engine, lan: str) -> None:
    """PTR queries return peers' names in both families, NXDOMAIN for free addresses."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    for address in ("10.9.0.2", "fd00:9::2"):
        reverse = dns.reversename.from_address(address).to_text()
        assert reply_values(ask(web, reverse, "PTR")) == {"web.lan."}
    for address in ("10.9.0.77", "fd00:9::77"):
        reverse = dns.reversename.from_address(address).to_text()
        assert rcode(ask(web, reverse, "PTR")) == "NXDOMAIN"


def test_query_for_absent_address_family_gets_an_empty_reply(engine: Engine) -> None:
    """An AAAA query for a peer without IPv6 gets an empty reply: the name exists.

    The query is not forwarded.
    """
    engine.network_create("four", subnet="10.8.0.0/24")
    web = engine.run("base", FOR_EVER, name="web", network="four")
    for kind in ("AAAA", "MX"):
        answer = ask(web, "web", kind)
        assert (rcode(answer), answer.answer) == ("NOERROR", [])


def test_peer_name_in_the_search_domain_is_not_forwarded(
    engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer's name in the search domain is not forwarded.

    The C library tries the search domain if the peer has no address of the family.
    """
    monkeypatch.setattr(dns_names, "searched", lambda: ["..", "corp.example"])
    engine.network_create("four", subnet="10.8.0.0/24")
    web = engine.run("base", FOR_EVER, name="web", network="four", aliases=["www"])

    def answer(name: str, kind: str) -> dns.message.Message | None:
        query = dns.message.make_query(name, kind)
        return dns_names.DnsNames(Store(str(root))).answer(web.id, query)

    for name in ("web.corp.example", "WWW.Corp.example", f"{web.id[:12]}.corp.example"):
        said = answer(name, "AAAA")
        assert said is not None
        assert (rcode(said), said.answer) == ("NOERROR", [])
        assert answer(name, "A") is None  # with a search domain it may be another host's name
    for name in ("corp.example", "other.corp.example", "web.example", "a.web.corp.example"):
        assert answer(name, "AAAA") is None


def test_shared_alias_resolves_to_all_its_containers(engine: Engine, lan: str) -> None:
    """A shared alias resolves to the address of each container that has it."""
    for name in ("one", "two", "three"):
        engine.run("base", FOR_EVER, name=name, network=lan, aliases=["all"])
    asker = engine.inspect("one")
    assert reply_values(ask(asker, "all")) == {"10.9.0.2", "10.9.0.3", "10.9.0.4"}


def test_program_in_a_container_resolves_peer_names(engine: Engine, lan: str) -> None:
    """A program in a container resolves peers' names through its resolv.conf."""
    engine.run("base", FOR_EVER, name="web", network=lan)
    engine.run("base", FOR_EVER, name="db", network=lan)
    pid = engine.inspect("db").state.pid
    assert inside(pid, by_name, "web", 4).addresses == {ip_address("10.9.0.2")}
    assert inside(pid, by_address, "10.9.0.2") == "web.lan"


def test_next_query_reflects_start_stop_connect_and_disconnect(engine: Engine, lan: str) -> None:
    """The DNS query after a start, stop, connect or disconnect gets the new addresses."""
    engine.network_create("dmz", subnet="10.8.0.0/24")
    asker = engine.run("base", FOR_EVER, name="asker", network=lan)
    other = engine.run("base", FOR_EVER, name="other", network="dmz")
    assert rcode(ask(asker, "other")) == "SERVFAIL"
    engine.network_connect(lan, "other", aliases=["friend"])
    assert reply_values(ask(asker, "other")) == {"10.9.0.3"}
    assert reply_values(ask(asker, "friend")) == {"10.9.0.3"}
    assert reply_values(ask(other, "asker")) == {"10.9.0.2"}
    engine.network_connect("dmz", "asker")
    assert reply_values(ask(asker, "other")) == {"10.9.0.3", "10.8.0.2"}
    engine.network_disconnect(lan, "other")
    assert reply_values(ask(asker, "other")) == {"10.8.0.2"}
    assert rcode(ask(asker, "friend")) == "SERVFAIL"
    engine.stop("other", timeout=0)
    assert rcode(ask(asker, "other")) == "SERVFAIL"
    engine.start("other")
    assert reply_values(ask(asker, "other")) == {"10.8.0.2"}


def test_default_network_has_no_name_resolution(engine: Engine) -> None:
    """Containers of the default network query the host's resolvers, not the daemon."""
    web = engine.run("base", FOR_EVER, name="web")
    engine.run("base", FOR_EVER, name="db")
    assert RESOLVER.encode() not in engine.exec("web", ["cat", "/etc/resolv.conf"]).stdout
    with pytest.raises(ConnectionRefusedError):
        ask(web, "db")


def test_connect_from_the_default_network_adds_the_resolver(engine: Engine, lan: str) -> None:
    """Connecting a container of the default network changes its resolv.conf in place.

    Disconnecting restores the file.
    """
    web = engine.run("base", FOR_EVER, name="web")

    def resolv_conf() -> str:
        return engine.exec("web", ["cat", "/etc/resolv.conf"]).stdout.decode()

    before = resolv_conf()
    engine.network_connect(lan, "web")
    assert f"nameserver {RESOLVER}\n" in resolv_conf()
    assert reply_values(ask(web, "web")) == {"10.9.0.2"}
    engine.network_disconnect(lan, "web")
    assert resolv_conf() == before
    with pytest.raises(ConnectionRefusedError):
        ask(web, "web")


def test_container_can_bind_port_53_itself(engine: Engine, lan: str) -> None:
    """A container can run a name server on all its addresses and still resolves names."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    with (
        netns(web) as space,
        space.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        space.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind(("", 53))
        tcp.bind(("", 53))
        tcp.listen()
        for over_tcp in (False, True):
            assert reply_values(ask(web, "web", tcp=over_tcp)) == {"10.9.0.2"}


def test_large_reply_is_truncated_over_udp_and_whole_over_tcp(engine: Engine, lan: str) -> None:
    """A large reply is whole over TCP.

    Over UDP the reply is cut to the client's size limit and has the TC flag.
    """
    for number in range(30):
        engine.run("base", FOR_EVER, name=f"c{number}", network=lan, aliases=["many"])
    asker = engine.inspect("c0")
    whole = ask(asker, "many", "AAAA", tcp=True)
    assert len(reply_values(whole)) == 30
    assert not whole.flags & dns.flags.TC
    assert reply_values(ask(asker, "many", "AAAA", payload=4096)) == reply_values(whole)
    for payload, room in ((0, 512), (100, 512), (600, 600)):
        cut = ask(asker, "many", "AAAA", payload=payload)
        assert cut.flags & dns.flags.TC
        assert reply_values(cut) < reply_values(whole)
        assert 0 <= room - len(cut.to_wire()) < _AAAA


def test_malformed_dns_message_gets_no_reply(engine: Engine, lan: str) -> None:
    """A DNS message that is no query gets no reply, but a query after it does."""
    web = engine.run("base", FOR_EVER, name="web", network=lan)
    with netns(web) as space, space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((RESOLVER, 53))
        for nonsense in (b"", b"x", os.urandom(300), bytes(12), b"\xff" * 64):
            opened.send(nonsense)
    assert reply_values(ask(web, "web")) == {"10.9.0.2"}


def test_every_dns_query_on_a_tcp_connection_is_answered(engine: Engine, lan: str) -> None:
    """Every DNS query on a TCP connection gets a reply, sent with others or in pieces.

    The client may close its side after the last query.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan, aliases=["www", "w3"])
    three = ("web", "www", "w3")
    together = encoded_queries(*three)
    for size in (len(together), 1, 30):
        with connected_to_resolver(web) as opened:
            for start in range(0, len(together), size):
                opened.sendall(together[start : start + size])
            opened.shutdown(socket.SHUT_WR)
            heard = list(replies_on(opened))
            assert sorted(map(queried_name, heard)) == sorted(three)
            assert all(reply_values(item) == {"10.9.0.2"} for item in heard)


def test_dns_query_split_across_tcp_segments_is_answered(engine: Engine, lan: str) -> None:
    """A whole DNS query gets its reply at once, a split query when its rest has arrived."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, aliases=["www", "w3"])
    together = encoded_queries("web", "www", "w3")
    whole = len(encoded_queries("web"))
    for cut in (whole + 1, whole + 2, whole + 9, len(together) - 1):
        with connected_to_resolver(web) as opened:
            coming = replies_on(opened)
            opened.sendall(together[:cut])
            assert queried_name(next(coming)) == "web"
            opened.sendall(together[cut:])
            assert {queried_name(next(coming)), queried_name(next(coming))} == {"www", "w3"}


def test_idle_tcp_connections_do_not_block_dns_queries(engine: Engine, lan: str) -> None:
    """A new TCP connection replaces the one that has been idle longest (RFC 7766, 6.2.3)."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=["10.9.0.200"])
    with contextlib.ExitStack() as stack:
        waits, first, *_, last = [
            stack.enter_context(connected_to_resolver(web)) for _ in range(250)
        ]
        waits.sendall(encoded_queries("www.example", "web"))
        assert queried_name(next(replies_on(waits))) == "web"
        for _ in range(50):
            stack.enter_context(connected_to_resolver(web))
        for tcp in (False, True):
            assert reply_values(ask(web, "web", tcp=tcp)) == {"10.9.0.2"}
        last.sendall(encoded_queries("web"))
        assert reply_values(next(replies_on(last))) == {"10.9.0.2"}
        assert not list(replies_on(first))
        assert rcode(next(replies_on(waits))) == "SERVFAIL"
