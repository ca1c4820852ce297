"""Tests of DNS queries for other names than peers', forwarded to resolvers or to none."""

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
    answers,
    ask,
    asked,
    connected,
    known,
    name_server,
    questions,
    rcode,
    told,
)
from tests.runtime.support.inspection import netns, until


def test_foreign_names_are_forwarded_to_the_requested_resolver(engine: Engine, lan: str) -> None:
    """Queries for foreign names go to the requested resolver over the same transport.

    Queries for peers' names are not forwarded.
    """
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    with name_server(known) as outside:
        for tcp in (False, True):
            assert told(ask(web, "www.example", tcp=tcp)) == {"192.0.2.1"}
            assert told(ask(web, "web", tcp=tcp)) == {"10.9.0.2"}
        assert outside.asked == [("www.example.", False), ("www.example.", True)]


def test_truncated_forwarded_reply_is_whole_over_tcp(engine: Engine, lan: str) -> None:
    """A truncated forwarded reply is passed on, and the query over TCP gets all of it."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    with name_server(known) as outside:
        assert ask(web, "big.example").flags & dns.flags.TC
        assert len(told(ask(web, "big.example", tcp=True))) == 200
        found = inside(web.state.pid, by_name, "big.example", 4).addresses
        assert found == {ip_address(f"192.0.2.{number}") for number in range(200)}
        assert ("big.example.", True) in outside.asked


def test_next_resolver_is_queried_after_a_failure(engine: Engine, lan: str) -> None:
    """After a resolver that is absent, fails or never replies, the next one is queried."""
    servers = ["10.9.0.200", GATEWAY, "172.17.42.1"]
    engine.network_inspect("bridge")
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=servers)

    def gives_up(query: Message, _: bool) -> Message:  # noqa: FBT001
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.SERVFAIL)
        return answer

    with name_server(gives_up):
        assert rcode(ask(web, "www.example")) == "SERVFAIL"
        with name_server(known, "172.17.42.1"):
            assert told(ask(web, "www.example")) == {"192.0.2.1"}
    with name_server(lambda query, tcp: None):  # noqa: ARG005
        assert rcode(ask(web, "www.example", tcp=True)) == "SERVFAIL"


def test_nxdomain_is_not_retried_with_another_resolver(engine: Engine, lan: str) -> None:
    """NXDOMAIN is a reply: no other resolver is queried."""

    def nowhere(query: Message, _: bool) -> Message:  # noqa: FBT001
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    servers = [GATEWAY, "172.17.42.1"]
    engine.network_inspect("bridge")
    web = engine.run("base", FOR_EVER, network=lan, dns=servers)
    with name_server(nowhere), name_server(known, "172.17.42.1") as second:
        assert rcode(ask(web, "www.example")) == "NXDOMAIN"
        assert second.asked == []


def test_internal_network_resolves_only_its_peers(engine: Engine) -> None:
    """An internal network resolves only peers' names, though the host has resolvers."""
    engine.network_create("closed", internal=True, subnet="10.7.0.0/24")
    web = engine.run("base", FOR_EVER, name="web", network="closed")
    engine.run("base", FOR_EVER, name="db", network="closed")
    assert told(ask(web, "db")) == {"10.7.0.3"}
    for name in ("www.example", "lan", "web.other"):
        assert rcode(ask(web, name)) == "NXDOMAIN"


def test_every_dns_query_on_a_tcp_connection_is_forwarded(engine: Engine, lan: str) -> None:
    """All queries sent at once over TCP are forwarded; a peer's name does not wait for them."""
    web = engine.run("base", FOR_EVER, name="web", network=lan, dns=[GATEWAY])
    outside = [f"{number}.example" for number in range(40)]
    with name_server(known), connected(web) as opened:
        opened.sendall(questions(*outside, "web"))
        opened.shutdown(socket.SHUT_WR)
        heard = {asked(item): told(item) for item in answers(opened)}
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
        connected(web) as connection,
    ):
        opened.connect((RESOLVER, 53))
        for number in range(400):
            opened.send(dns.message.make_query(f"{number}.example", "A").to_wire())
        until(lambda: len(outside.asked) > 200, "the queries are forwarded")
        assert told(ask(web, "web", patience=3)) == {"10.9.0.2"}
        connection.sendall(questions("www.example", "web"))
        heard = answers(connection)
        assert {asked(next(heard)), asked(next(heard))} == {"www.example", "web"}
        assert len({name for name, _ in outside.asked}) <= 256
