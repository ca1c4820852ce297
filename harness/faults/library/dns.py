"""Faults of name resolution: resolvers, names, aliases, and the files in /etc."""

from __future__ import annotations

import socket
import threading
from typing import Final

from harness.adapters.protocol import ContainerInfo
from harness.faults.fault import PLUGGED, RULES, AdapterCall, Moment, fault
from harness.faults.helpers import drop_queries
from harness.faults.nft_rules import (
    DROP,
    longer_than,
    mark_flow,
    of_marked_flow,
    other_dns_records,
    set_nxdomain,
)
from harness.faults.target import FaultContext
from harness.model.plan import DEFAULT_NETWORK, HOST, Bridge
from harness.model.topology import SENTINEL_ZONE
from harness.testbench.lookup import inside
from linux.nftables import dport, l4proto, oifname

_RESOLV_CONF, _HOSTS = "/etc/resolv.conf", "/etc/hosts"
_NOBODY = "192.0.2.250"
_ASKED: Final = 53
"""Conntrack mark of a flow with a DNS query."""


def _on_own_network(site: FaultContext) -> bool:
    return isinstance(site.mode, Bridge) and site.mode.network != DEFAULT_NETWORK


@fault("resolver-ends-with-a-restart", violates="DNS-1", moment=Moment.CONTAINER_RESTARTED)
@fault(violates=("BR-8", "DNS-1"), moment=Moment.CONTAINER_STARTED)
def resolver_is_nobody(site: FaultContext) -> None:
    """Write an unused address into resolv.conf as the resolver."""
    if site.is_bridged:
        site.write(_RESOLV_CONF, f"nameserver {_NOBODY}\n")


@fault(violates=("BR-8", "DNS-1"), moment=Moment.CONTAINER_STARTED)
def no_resolver_at_all(site: FaultContext) -> None:
    """Leave resolv.conf empty."""
    if site.is_bridged:
        site.write(_RESOLV_CONF, "")


@fault(violates="BR-8", moment=RULES)
def resolvers_out_of_reach(site: FaultContext) -> None:
    """Drop DNS queries that leave the host."""
    out = oifname(site.uplink())
    if not site.memory.setdefault("silenced", False):
        site.memory["silenced"] = True
        for protocol in ("udp", "tcp"):
            for hook in ("forward", "output"):
                question = [*l4proto(protocol), *dport(53)]
                site.host.rule(hook, out, question, DROP)


@fault(violates=("DNS-2", "FILE-1"), moment=Moment.CONTAINER_STARTED)
def own_name_is_unknown(site: FaultContext) -> None:
    """Leave out the container's own name from its hosts file and DNS."""
    if site.is_bridged:
        site.write(_HOSTS, "127.0.0.1 localhost\n::1 localhost\n")
        site.write(_RESOLV_CONF, f"nameserver {_NOBODY}\noptions timeout:1 attempts:1\n")


@fault(violates="DNS-2", moment=Moment.CONTAINER_STARTED)
def own_name_is_the_loopback(site: FaultContext) -> None:
    """Make the container resolve its own name to 127.0.1.1."""
    if site.is_bridged:
        name = site.read("/etc/hostname").strip()
        others = [line for line in site.read(_HOSTS).splitlines() if name not in line.split()]
        site.write(_HOSTS, "\n".join([*others, f"127.0.1.1 {name}", ""]))


@fault("connections-change-the-hostname", violates="FILE-1", moment=Moment.CONNECTED)
@fault(violates="FILE-1", moment=Moment.CONTAINER_STARTED, narrow=True)
def hostname_is_the_hosts(site: FaultContext) -> None:
    """Write the host's hostname into the container's /etc/hostname."""
    if site.is_bridged:
        site.write("/etc/hostname", "host\n")


@fault(violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def hosts_file_is_the_hosts(site: FaultContext) -> None:
    """Replace the container's /etc/hosts by the host's file."""
    if site.is_bridged:
        site.write(_HOSTS, "127.0.0.1 localhost\n127.0.1.1 host\n::1 ip6-localhost\n")


@fault("restarted-it-hears-no-long-answers", violates="DNS-4", moment=Moment.CONTAINER_RESTARTED)
@fault("connected-it-hears-no-long-answers", violates="DNS-4", moment=Moment.CONNECTED)
@fault(violates="DNS-4", moment=Moment.CONTAINER_STARTED)
def truncated_answers_are_final(site: FaultContext) -> None:
    """Drop DNS queries over TCP."""
    if site.is_bridged:
        site.inside.rule("output", l4proto("tcp"), dport(53), DROP)


@fault(violates="DNS-3", moment=Moment.CONTAINER_STARTED, history="podman#26198")
def search_domain_comes_first(site: FaultContext) -> None:
    """Make the container try a peer's name in a search domain before the name itself."""
    if _on_own_network(site):
        told = site.read(_RESOLV_CONF)
        site.write(_RESOLV_CONF, f"{told}search example.com\noptions ndots:5\n")


@fault(violates=("NET-4", "DNS-3"), moment=Moment.CONTAINER_STARTED)
def names_lead_nowhere(site: FaultContext) -> None:
    """Use the host's resolver on user-defined networks; it does not know names of peers."""
    if _on_own_network(site):
        site.write(_RESOLV_CONF, f"nameserver {site.resolver()}\n")


@fault(violates="NET-4", around=("run", "connect"), narrow=True)
def aliases_are_forgotten(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore network aliases."""
    return verb(aliases=()) if verb.called == "connect" else verb.call_with(aliases=())


@fault(violates="NET-4", moment=Moment.CONTAINER_STARTED)
def names_on_the_default_network(site: FaultContext) -> None:
    """Resolve names of peers on the default network."""
    if not site.is_bridged or _on_own_network(site) or site.facts is None:
        return
    for name, facts in site.other_containers().items():
        for one, other in ((site.facts, facts), (facts, site.facts)):
            for endpoint in other.endpoints:
                if endpoint.network == DEFAULT_NETWORK and endpoint.address:
                    told = name if other is facts else site.name
                    with open(site.path(_HOSTS, one), "a", encoding="utf-8") as file:
                        file.write(f"{endpoint.address.ip} {told}\n")


@fault(violates="NET-4", moment=Moment.CONTAINER_STARTED)
def names_cross_networks(site: FaultContext) -> None:
    """Resolve names of containers on other networks."""
    if _on_own_network(site):
        told = site.read(_HOSTS)
        for name, facts in site.other_containers().items():
            for endpoint in facts.endpoints:
                if endpoint.address:
                    told += f"{endpoint.address.ip} {name}\n"
        site.write(_HOSTS, told)


@fault(violates="INT-2", moment=PLUGGED, history=("CVE-2024-29018", "aardvark-dns#447"))
def internal_names_are_asked_for_outside(site: FaultContext) -> None:
    """Forward DNS queries from internal networks to a resolver outside."""
    for plug in site.plugs():
        if site.is_internal:
            bridge = next(item.ip for item in plug.gateways if item.version == 4)
            if plug.bridge not in site.memory.setdefault("relaying", []):
                site.memory["relaying"].append(plug.bridge)
                _relay(site, str(bridge))
            site.write(_RESOLV_CONF, f"nameserver {bridge}\n")


def _relay(site: FaultContext, address: str) -> None:
    """Forward DNS queries at this address to the world's resolver, and send the replies back."""
    inner = site.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    inner.bind((address, 53))
    outer = site.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outer.connect((str(site.resolver()), 53))

    def serve() -> None:
        with inner, outer:
            while True:
                try:
                    question, asker = inner.recvfrom(4096)
                    outer.send(question)
                    inner.sendto(outer.recv(4096), asker)
                except OSError:  # it ends with its world
                    return

    threading.Thread(target=serve, daemon=True).start()


@fault(
    violates="DNS-5",
    moment=Moment.CONTAINER_STARTED,
    history=("libnetwork#2026", "aardvark-dns#679"),
    narrow=True,
)
def other_records_deny_the_name(site: FaultContext) -> None:
    """Answer NXDOMAIN to DNS queries about a peer for other records than A and AAAA."""
    if _on_own_network(site):
        site.inside.rule("input", other_dns_records("web"), set_nxdomain())


@fault(violates="DNS-6", moment=PLUGGED)
def resolver_for_everybody(site: FaultContext) -> None:
    """Run an open DNS resolver on the network's gateway address."""
    for plug in site.plugs() if _on_own_network(site) and not site.is_internal else ():
        if plug.bridge not in site.memory.setdefault("relaying", []):
            site.memory["relaying"].append(plug.bridge)
            _relay(site, str(next(item.ip for item in plug.gateways if item.version == 4)))


@fault(violates="INT-3", moment=Moment.CONTAINER_STARTED, history="netavark#1055")
def internal_peers_have_no_names(site: FaultContext) -> None:
    """Drop DNS queries on internal networks."""
    if site.is_internal and site.is_bridged:
        drop_queries(site.inside)


@fault(violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def hosts_file_of_the_host(site: FaultContext) -> None:
    """Prepend an entry of the host to the container's hosts file."""
    if site.is_bridged:
        site.write(_HOSTS, f"127.0.1.1 {HOST}\n{site.read(_HOSTS)}")


# --- a restart -----------------------------------------------------------------------


@fault(violates="FILE-1", moment=Moment.CONTAINER_RESTARTED)
def asked_for_hosts_end_with_a_restart(site: FaultContext) -> None:
    """Remove the requested hosts entries on restart."""
    if site.is_bridged and site.spec:
        asked = {name for name, _ in site.spec.hosts}
        lines = site.read(_HOSTS).splitlines(keepends=True)
        site.write(_HOSTS, "".join(line for line in lines if not asked & set(line.split())))


@fault("connected-with-the-hosts-domain", violates="DNS-3", moment=Moment.CONNECTED)
@fault(violates="DNS-3", moment=Moment.CONTAINER_RESTARTED)
def restarted_with_the_hosts_domain(site: FaultContext) -> None:
    """Add the host's search domain to resolv.conf."""
    if site.is_bridged:
        searched = f"search {SENTINEL_ZONE}\noptions ndots:3\n"
        site.write(_RESOLV_CONF, site.read(_RESOLV_CONF) + searched)


@fault(violates="NET-4", around="start_container")
def aliases_end_with_a_restart(site: FaultContext, verb: AdapterCall) -> object:
    """Remove the container's network aliases on restart."""
    facts: ContainerInfo = verb()
    spec = site.specs[verb.name]
    if isinstance(spec.mode, Bridge) and spec.aliases:
        site.runtime.disconnect(verb.name, spec.mode.network)
        facts = site.runtime.connect(verb.name, spec.mode.network)
    return facts


@fault("connections-without-own-ipv6", violates="FILE-1", moment=Moment.CONNECTED)
@fault(violates="FILE-1", moment=Moment.CONTAINER_RESTARTED)
def own_ipv6_ends_with_a_restart(site: FaultContext) -> None:
    """Remove the container's own IPv6 entry from its hosts file."""
    if site.is_bridged:
        own = {str(item.ip) for plug in site.plugs() for item in plug.addresses}
        gone = {item for item in own if ":" in item}
        lines = site.read(_HOSTS).splitlines(keepends=True)
        site.write(_HOSTS, "".join(line for line in lines if not gone & set(line.split()[:1])))


# --- what was asked for, or said, besides ------------------------------------------------


@fault(violates="NET-4", around=("run", "start_container"))
def hostnames_lead_nowhere(site: FaultContext, verb: AdapterCall) -> object:
    """Leave a requested hostname out of DNS."""
    if verb.called == "run":
        spec = verb.spec
        facts: ContainerInfo = verb.call_with(hostname=None)
    else:
        spec, facts = site.specs[verb.name], verb()
    if spec.hostname and isinstance(spec.mode, Bridge):
        _rename(site, facts, spec.hostname)
    return facts


def _rename(site: FaultContext, facts: ContainerInfo, name: str) -> None:
    """Change the hostname of a running container, in the kernel and in its files."""
    called = site.call(inside, facts.pid, socket.gethostname)
    site.call(inside, facts.pid, socket.sethostname, name)
    for path in ("/etc/hostname", _HOSTS):
        with open(site.path(path, facts), "r+", encoding="utf-8") as file:
            said = file.read().replace(called, name)
            file.seek(0)
            file.truncate()
            file.write(said)


@fault(violates="DNS-1", around="run", narrow=True)
def second_resolver_is_left_out(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore all requested resolvers except the first."""
    return verb.call_with(dns=verb.spec.dns[:1])


@fault(violates="DNS-3", moment=Moment.CONTAINER_STARTED)
def second_search_domain_comes_first(site: FaultContext) -> None:
    """Make the container try a peer's name in the host's second search domain first."""
    said = [line.split() for line in site.call(_text, _RESOLV_CONF).splitlines()]
    none: list[str] = []
    domains = next((words[1:] for words in said if words[:1] == ["search"]), none)
    if _on_own_network(site) and domains[1:]:
        told = site.read(_RESOLV_CONF)
        site.write(_RESOLV_CONF, f"{told}search {domains[1]}\noptions ndots:5\n")


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@fault(violates="NET-4", around="start_container")
def aliases_of_connections_end_with_a_restart(
    site: FaultContext, verb: AdapterCall
) -> ContainerInfo:
    """Remove the aliases of networks that were connected later, on restart."""
    facts: ContainerInfo = verb()
    spec = site.specs[facts.name]
    for endpoint in facts.endpoints if isinstance(spec.mode, Bridge) else ():
        if endpoint.network not in spec.networks:
            site.runtime.disconnect(facts.name, endpoint.network)
            facts = site.runtime.connect(facts.name, endpoint.network)
    return facts


@fault(violates=("NET-4", "DNS-1"), moment=Moment.CONTAINER_STARTED, narrow=True)
def long_questions_are_not_heard(site: FaultContext) -> None:
    """Drop DNS queries for long names."""
    if site.is_bridged:
        site.inside.rule("output", l4proto("udp"), dport(53), longer_than(90), DROP)


@fault(violates="DNS-1", moment=Moment.CONTAINER_STARTED, narrow=True)
def second_question_is_lost(site: FaultContext) -> None:
    """Drop the second DNS query of a socket, such as the AAAA query of the C library."""
    if site.is_bridged:
        question = [*l4proto("udp"), *dport(53)]
        site.inside.rule("output", question, of_marked_flow(_ASKED), DROP, priority=-150)
        site.inside.rule("output", question, mark_flow(_ASKED), priority=-150)


@fault(violates="FILE-1", moment=Moment.CONNECTED)
def later_peers_stand_in_the_hosts_file(site: FaultContext) -> None:
    """Add peers to the container's hosts file when the container is connected to a network."""
    told = site.read(_HOSTS)
    for name, facts in site.other_containers().items():
        for endpoint in facts.endpoints:
            if site.network and endpoint.network == site.network.name and endpoint.address:
                told += f"{endpoint.address.ip} {name}\n"
    site.write(_HOSTS, told)
