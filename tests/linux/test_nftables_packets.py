"""Tests of the effects of nftables rules on packets."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Literal

import pytest

from harness.model.plan import PROTOCOLS, Outcome, Protocol
from linux import nftables
from linux.netlink import Request
from linux.netns import NetNS
from linux.nftables import Expression, Nft, Rejection, Table
from linux.rtnetlink import Network
from tests.linux import decoder
from tests.linux.star_topology import SHARED, Star
from tests.support.probing import settle

TABLE = Table("inet", "mine")
FAMILIES = (4, 6)
PORT = 7777
Parts = list[Expression]


def chain(
    *parts: Parts, hook: nftables.Hook = "forward", kind: Literal["filter", "nat"] = "filter"
) -> list[Request]:
    """Return requests for a table with one chain and one rule."""
    priority = {"prerouting": -100, "postrouting": 100}[hook] if kind == "nat" else 0
    return [
        nftables.add_table(TABLE),
        nftables.add_chain(TABLE, hook, hook=hook, priority=priority, kind=kind),
        nftables.add_rule(TABLE, hook, *parts),
    ]


# --- matches ------------------------------------------------------------------------

IN, OUT = "eth0", "eth1"
CLIENT = {4: "192.0.2.2", 6: "2001:db8::2"}
ROUTER = {
    4: ("192.0.2.1", "192.0.2.5", "192.0.2.9"),
    6: ("2001:db8::1", "2001:db8:1::1", "2001:db8:2::1"),
}
UDP = nftables.l4proto("udp")


def net(text: str) -> Network:
    """Return a network of either family."""
    return ip_network(text)


MATCHES: dict[str, tuple[list[Parts], tuple[int, ...]]] = {
    "counter": ([], (4, 6)),
    "iifname": ([nftables.iifname(IN)], (4, 6)),
    "iifname prefix": ([nftables.iifname("eth*")], (4, 6)),
    "iifname is a whole name": ([nftables.iifname("eth")], ()),
    "iifname other": ([nftables.iifname(OUT)], ()),
    "iifname not": ([nftables.iifname(IN, is_not=True)], ()),
    "iifname not prefix": ([nftables.iifname("docker*", is_not=True)], (4, 6)),
    "oifname": ([nftables.oifname(OUT)], (4, 6)),
    "oifname other": ([nftables.oifname(IN)], ()),
    "oifname not": ([nftables.oifname(IN, is_not=True)], (4, 6)),
    "family 4": ([nftables.family(4)], (4,)),
    "family 6": ([nftables.family(6)], (6,)),
    "udp": ([UDP], (4, 6)),
    "tcp": ([nftables.l4proto("tcp")], ()),
    "saddr host 4": ([nftables.saddr(net(CLIENT[4]))], (4,)),
    "saddr host 6": ([nftables.saddr(net(CLIENT[6]))], (6,)),
    "saddr net 4": ([nftables.saddr(net("192.0.2.0/30"))], (4,)),
    "saddr net 6": ([nftables.saddr(net("2001:db8::/47"))], (6,)),
    "saddr other 4": ([nftables.saddr(net("192.0.2.4/30"))], ()),
    "saddr other 6": ([nftables.saddr(net("2001:db8:0:4::/62"))], ()),
    "saddr not 4": ([nftables.saddr(net("192.0.2.4/30"), is_not=True)], (4,)),
    "saddr not 6": ([nftables.saddr(net("2001:db8::/47"), is_not=True)], ()),
    "daddr host 4": ([nftables.daddr(net(SHARED[4]))], (4,)),
    "daddr host 6": ([nftables.daddr(net(SHARED[6]))], (6,)),
    "daddr net 4": ([nftables.daddr(net("198.51.100.0/25"))], (4,)),
    "daddr net 6": ([nftables.daddr(net("2001:db8:8::/46"))], (6,)),
    "daddr other": ([nftables.daddr(net("198.51.100.128/25"))], ()),
    "daddr not": ([nftables.daddr(net(SHARED[4]), is_not=True)], ()),
    "dport": ([UDP, nftables.dport(PORT)], (4, 6)),
    "dport other": ([UDP, nftables.dport(PORT + 1)], ()),
    "state new": ([nftables.ct_state("new")], (4, 6)),
    "state one of": ([nftables.ct_state("established", "new")], (4, 6)),
    "state other": ([nftables.ct_state("established", "related", "invalid", "untracked")], ()),
    "not dnat": ([nftables.ct_dnat()], ()),
    "to elsewhere": ([nftables.to_local()], ()),
}


def packets(space: NetNS) -> dict[str, int]:
    """Return the packet count of each rule that has a counter, by the rule's comment."""
    with decoder.nftables(space) as other:
        return {
            rule.get_attr("NFTA_RULE_USERDATA"): data.get_attr("NFTA_COUNTER_PACKETS")
            for rule in other.get_rules()
            for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS")
            if expression.get_attr("NFTA_EXPR_NAME") == "counter"
            for data in [expression.get_attr("NFTA_EXPR_DATA")]
        }


def test_nft_expression_matches_its_packets(rules: Nft, star: Star) -> None:
    """Each nft expression matches the intended packets of each family, and no others."""
    matches = [
        nftables.add_rule(TABLE, "chain", *parts, nftables.counter(), comment=comment)
        for comment, (parts, _) in MATCHES.items()
    ]
    seen: dict[str, tuple[int, ...]] = dict.fromkeys(MATCHES, ())
    for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        base = nftables.add_chain(TABLE, "chain", hook="forward")
        rules.apply([nftables.add_table(TABLE), nftables.del_table(TABLE)])
        rules.apply([nftables.add_table(TABLE), base, *matches])
        with (
            star.first.socket(kind, socket.SOCK_DGRAM) as listener,  # else there is an ICMP error
            star.client.socket(kind, socket.SOCK_DGRAM) as client,
        ):
            listener.bind(("", PORT))
            client.sendto(b"!", (SHARED[family], PORT))
            settle(*star.namespaces)
        for comment, count in packets(star.router).items():
            seen[comment] += (family,) * count
    assert seen == {comment: families for comment, (_, families) in MATCHES.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_ct_state_established_matches_replies(rules: Nft, star: Star, family: int) -> None:
    """With a rule for established connections, replies pass a forward chain that drops packets.

    Without the rule, replies are dropped.
    """
    established, accept = nftables.ct_state("established"), nftables.verdict("accept")
    allowed = nftables.add_rule(TABLE, "chain", established, accept)
    closed = nftables.add_rule(TABLE, "chain", nftables.iifname(OUT), nftables.verdict("drop"))
    base = [nftables.add_table(TABLE), nftables.add_chain(TABLE, "chain", hook="forward")]
    rules.apply([*base, allowed, closed])
    assert star.probe(star.client, family, star.first).outcome is Outcome.REPLY
    rules.apply([nftables.del_table(TABLE), *base, closed])
    assert star.probe(star.client, family, star.first).outcome is Outcome.DROPPED


@pytest.mark.parametrize("family", FAMILIES)
def test_to_local_matches_only_packets_to_own_addresses(
    rules: Nft, star: Star, family: int
) -> None:
    """`to_local` matches packets to all addresses of the namespace.

    It does not match forwarded packets.
    """
    rules.apply(chain(UDP, nftables.to_local(), nftables.verdict("drop"), hook="prerouting"))
    assert star.probe(star.client, family, star.first, Protocol.UDP).outcome is Outcome.REPLY
    for own in ROUTER[family]:
        seen = star.probe(star.client, family, star.router, Protocol.UDP, to=own)
        assert seen.outcome is Outcome.DROPPED


# --- verdicts and NAT ---------------------------------------------------------------

REJECTIONS: dict[Rejection, str] = {
    "no-route": "net-unreachable",
    "port-unreachable": "port-unreachable",
    "host-unreachable": "host-unreachable",
    "admin-prohibited": "admin-prohibited",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", REJECTIONS)
def test_reject_sends_the_requested_icmp_error(
    rules: Nft, star: Star, family: int, how: Rejection
) -> None:
    """The sender of a rejected packet gets the requested ICMP error, for any protocol."""
    rules.apply(chain(nftables.reject(how)))
    for protocol in PROTOCOLS:
        seen = star.probe(star.client, family, star.first, protocol)
        assert (seen.outcome, seen.code) == (Outcome.REJECTED, REJECTIONS[how])


@pytest.mark.parametrize("family", FAMILIES)
def test_reject_with_tcp_reset_affects_tcp_only(rules: Nft, star: Star, family: int) -> None:
    """A reject by TCP reset answers a TCP connection with a RST.

    It does not reject other packets.
    """
    rules.apply(chain(nftables.l4proto("tcp"), nftables.reject("tcp-reset")))
    outcomes = [star.probe(star.client, family, star.first, protocol) for protocol in PROTOCOLS]
    assert [seen.outcome for seen in outcomes] == [Outcome.REPLY, Outcome.REPLY, Outcome.REJECTED]
    assert outcomes[2].code == "rst"


@pytest.mark.parametrize("family", FAMILIES)
def test_nft_verdicts_act_as_documented(rules: Nft, star: Star, family: int) -> None:
    """Drop drops the packet, and accept ends the chain.

    Jump continues in another chain, and return comes back from it.
    """

    def outcome(*verdicts: Parts, sub: Parts | None = None, policy: str = "accept") -> Outcome:
        rules.apply([nftables.add_table(TABLE), nftables.del_table(TABLE)])
        rules.apply(
            [
                nftables.add_table(TABLE),
                nftables.add_chain(TABLE, "sub"),
                nftables.add_chain(TABLE, "chain", hook="forward", policy=policy),  # type: ignore[arg-type] # a literal
                *([nftables.add_rule(TABLE, "sub", sub)] if sub else []),
                *(nftables.add_rule(TABLE, "chain", verdict) for verdict in verdicts),
            ]
        )
        return star.probe(star.client, family, star.first).outcome

    accept, drop = nftables.verdict("accept"), nftables.verdict("drop")
    back = nftables.verdict("return")
    assert outcome(drop) is Outcome.DROPPED
    assert outcome(accept, drop) is Outcome.REPLY
    assert outcome(policy="drop") is Outcome.DROPPED
    assert outcome(accept, policy="drop") is Outcome.REPLY
    assert outcome(nftables.jump("sub"), drop, sub=accept) is Outcome.REPLY
    assert outcome(nftables.jump("sub"), accept, sub=drop) is Outcome.DROPPED
    assert outcome(nftables.jump("sub"), drop, sub=back) is Outcome.DROPPED
    assert outcome(back, accept, policy="drop") is Outcome.DROPPED


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_masquerade_replaces_the_source_address(
    rules: Nft, star: Star, family: int, protocol: Protocol
) -> None:
    """The server sees the address of the router's outgoing link.

    The client gets the server's reply.
    """
    before = star.probe(star.client, family, star.first, protocol)
    out = nftables.oifname(OUT)
    rules.apply(chain(out, nftables.masquerade(), hook="postrouting", kind="nat"))
    after = star.probe(star.client, family, star.first, protocol)
    assert (before.outcome, before.seen_from) == (Outcome.REPLY, CLIENT[family])
    assert (after.outcome, after.seen_from) == (Outcome.REPLY, ROUTER[family][1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dnat_redirects_to_another_host(
    rules: Nft, star: Star, family: int, protocol: Protocol
) -> None:
    """Dnat redirects a packet for the router to another host.

    `ct_dnat` matches the packet.
    """
    own, version = ROUTER[family][0], nftables.family(family)
    to = nftables.dnat(star.address(2, family))
    rules.apply(
        [
            *chain(nftables.to_local(), version, to, hook="prerouting", kind="nat"),
            nftables.add_chain(TABLE, "forward", hook="forward", policy="drop"),
            nftables.add_rule(TABLE, "forward", nftables.ct_dnat(), nftables.verdict("accept")),
        ]
    )
    seen = star.probe(star.client, family, star.second, protocol, to=own)
    assert (seen.outcome, seen.seen_from) == (Outcome.REPLY, CLIENT[family])
    assert star.probe(star.client, family, star.first, protocol).outcome is Outcome.DROPPED


@pytest.mark.parametrize("family", FAMILIES)
def test_dnat_rewrites_the_port(rules: Nft, star: Star, family: int) -> None:
    """A published port on the router leads to another port of a host behind it."""
    own = ROUTER[family][0]
    port, to = nftables.dport(PORT), nftables.dnat(star.address(2, family), PORT + 1)
    rules.apply(chain(nftables.family(family), UDP, port, to, hook="prerouting", kind="nat"))
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with (
        star.second.socket(kind, socket.SOCK_DGRAM) as listener,
        star.client.socket(kind, socket.SOCK_DGRAM) as client,
    ):
        listener.bind(("", PORT + 1))
        client.sendto(b"knock", (own, PORT))
        client.sendto(b"wrong door", (own, PORT + 1))
        settle(*star.namespaces)
        listener.setblocking(False)
        assert listener.recv(100) == b"knock"
        with pytest.raises(BlockingIOError):
            listener.recv(100)
