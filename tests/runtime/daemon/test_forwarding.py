"""Tests of DNS queries for names of no peer, and of their forwarding to resolvers."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
from dns.message import Message

from harness.testbench.lookup import by_name, inside
from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.runtime.daemon.dns_client import (
    GATEWAY,
    RESOLVER,
    ask,
    connected_to_resolver,
    encoded_queries,
    fixed_reply,
    name_server,
    queried_name,
    rcode,
    replies_on,
    reply_values,
)
from tests.runtime.support.inspection import netns, until


def test_names_of_no_peer_are_forwarded_to_the_requested_resolver(engine: Engine, lan: str) -> None:
    """Queries for names of no peer go to the requested resolver over the same transport.

    Queries for peers' names are not forwarded.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    with name_server(fixed_reply) as outside:
        for tcp in (False, True):
            assert reply_values(ask(web, "www.example", tcp=tcp)) == {"192.0.2.1"}
            assert reply_values(ask(web, "web", tcp=tcp)) == {"10.9.0.2"}
        assert outside.queries == [("www.example.", False), ("www.example.", True)]


def test_truncated_forwarded_reply_is_whole_over_tcp(engine: Engine, lan: str) -> None:
    """A truncated forwarded reply is passed on, and the query over TCP gets all of it."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    with name_server(fixed_reply) as outside:
        assert ask(web, "big.example").flags & dns.flags.TC
        assert len(reply_values(ask(web, "big.example", tcp=True))) == 200
        found = inside(web.state.pid, by_name, "big.example", 4).addresses
        assert found == {ip_address(f"192.0.2.{number}") for number in range(200)}
        assert ("big.example.", True) in outside.queries


def test_next_resolver_is_queried_after_a_failure(engine: Engine, lan: str) -> None:
    """After a resolver that is absent, fails or never replies, the next one is queried."""
    servers = ["10.9.0.200", GATEWAY, "172.17.42.1"]
    engine.network_inspect("bridge")
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=servers)

    def servfail(query: Message, _: bool) -> Message:  # noqa: FBT001
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.SERVFAIL)
        return answer

    with name_server(servfail):
        assert rcode(ask(web, "www.example")) == "SERVFAIL"
        with name_server(fixed_reply, "172.17.42.1"):
            assert reply_values(ask(web, "www.example")) == {"192.0.2.1"}
    with name_server(lambda query, tcp: None):  # noqa: ARG005
        assert rcode(ask(web, "www.example", tcp=True)) == "SERVFAIL"


def test_nxdomain_is_not_retried_with_another_resolver(engine: Engine, lan: str) -> None:
    """NXDOMAIN is a reply: no other resolver is queried."""

    def nxdomain(query: Message, _: bool) -> Message:  # noqa: FBT001
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    servers = [GATEWAY, "172.17.42.1"]
    engine.network_inspect("bridge")
    web = engine.run("base", FOR_EVER, network=lan, dns=servers)
    with name_server(nxdomain), name_server(fixed_reply, "172.17.42.1") as second:
        assert rcode(ask(web, "www.example")) == "NXDOMAIN"
        assert second.queries == []


def test_internal_network_resolves_only_its_peers(engine: Engine) -> None:
    """An internal network resolves only peers' names, though the host has resolvers."""
    engine.network_create("closed", internal=True, subnet="10.7.0.0/24")
    web = engine.run("base", FOR_EVER, name="web", network="closed")
    engine.run("base", FOR_EVER, name="db", network="closed")
    assert reply_values(ask(web, "db")) == {"10.7.0.3"}
    for name in ("www.example", "lan", "web.other"):
        assert rcode(ask(web, name)) == "NXDOMAIN"


def test_every_dns_query_on_a_tcp_connection_is_forwarded(engine: Engine, lan: str) -> None:
    """All queries sent together over TCP are forwarded.

    A query for a peer's name does not wait for the replies to them.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    outside = [f"{number}.example" for number in range(40)]
    with name_server(fixed_reply), connected_to_resolver(web) as opened:
        opened.sendall(encoded_queries(*outside, "web"))
        opened.shutdown(socket.SHUT_WR)
        heard = {queried_name(item): reply_values(item) for item in replies_on(opened)}
    assert heard == {**{name: {"192.0.2.1"} for name in outside}, "web": {"10.9.0.2"}}


def test_peer_name_resolves_while_resolvers_are_silent(engine: Engine, lan: str) -> None:
    """A peer's name resolves while resolvers are silent, however many queries came before.

    The number of queries that are pending at a time has a limit.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY] * 6)
    with (
        name_server(lambda query, tcp: None) as outside,  # noqa: ARG005
        netns(web) as space,
        space.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened,
        connected_to_resolver(web) as connection,
    ):
        opened.connect((RESOLVER, 53))
        for number in range(400):
            opened.send(dns.message.make_query(f"{number}.example", "A").to_wire())
        until(lambda: len(outside.queries) > 200, "the queries are forwarded")
        assert reply_values(ask(web, "web", patience=3)) == {"10.9.0.2"}
        connection.sendall(encoded_queries("www.example", "web"))
        heard = replies_on(connection)
        assert {queried_name(next(heard)), queried_name(next(heard))} == {"www.example", "web"}
        assert len({name for name, _ in outside.queries}) <= 256
