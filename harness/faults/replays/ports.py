"""Replays of upstream bugs of published ports; suites/upstream describes the bugs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Network

from harness.adapters.protocol import RuntimeRefused
from harness.faults.fault import AdapterCall, Moment, replay
from harness.faults.helpers import FAMILIES, drop, gateway_of
from harness.faults.nft_rules import icmp_errors, mark_flow, of_marked_flow
from harness.faults.target import FaultContext
from harness.model.plan import Bridge, Publish
from linux.nftables import Expression, daddr, dport, family, iifname, l4proto

_REFUSED = 7
"""Conntrack mark of a flow that was refused."""
_RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"


def _to(port: Publish) -> list[Expression]:
    return [*l4proto(port.protocol), *dport(port.host_port)]


def _ports(site: FaultContext) -> Iterator[Publish]:
    """Yield the published ports of a container on a bridge network."""
    yield from site.facts.ports if site.facts and site.is_bridged else ()


def _file(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@replay("moby#48090", "cri-o@01d71e2f1d", violates="PUB-12", around="run")
def host_ipv6_refused_for_ipv4_container(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse to publish on an IPv6 address of the host for a container without IPv6."""
    mode = verb.spec.mode
    if isinstance(mode, Bridge) and any(
        p.host_ip and p.host_ip.version == 6 for p in verb.spec.ports
    ):
        gateways = site.runtime.network_facts(mode.network).gateways
        if not any(gateway.version == 6 for gateway in gateways):
            raise RuntimeRefused("run", "the container has no IPv6 address")
    return verb()


@replay("moby#48570", violates="PUB-1", moment=Moment.CONTAINER_STARTED)
def link_local_address_of_host_is_closed(site: FaultContext) -> None:
    """Drop packets to published ports at a link-local address of the host."""
    for port in _ports(site):
        drop(site, "prerouting", daddr(IPv6Network("fe80::/10")), _to(port))
        drop(site, "output", daddr(IPv6Network("fe80::/10")), _to(port))


@replay("moby#51695", violates="PUB-7", around="run")
def container_port_0_accepted(_: FaultContext, verb: AdapterCall) -> object:
    """Accept a port mapping to container port 0."""
    ports = (replace(port, container_port=port.container_port or 80) for port in verb.spec.ports)
    return verb.call_with(ports=tuple(ports))


@replay("moby#52818", violates="PUB-12", around="run")
def reserved_port_chosen(site: FaultContext, verb: AdapterCall) -> object:
    """Choose a host port that the host's sysctl reserves for other uses."""
    reserved = site.call(_file, _RESERVED).strip()
    first = int(reserved.replace("-", ",").split(",")[0]) if reserved else 0
    ports = (replace(port, host_port=port.host_port or first) for port in verb.spec.ports)
    return verb.call_with(ports=tuple(ports))


@replay("moby#48571", violates="PUB-5", moment=Moment.CONTAINER_STARTED)
def udp_ports_closed_to_other_networks(site: FaultContext) -> None:
    """Drop UDP packets from containers on other networks to published ports."""
    own = {plug.bridge for plug in site.plugs()}
    for port in _ports(site):
        for bridge in site.bridges() if port.protocol == "udp" else ():
            if bridge not in own:
                drop(site, "prerouting", iifname(bridge), _to(port))


@replay("moby#50669", violates="PUB-7", around="run")
def udp_port_of_a_process_is_taken(_: FaultContext, verb: AdapterCall) -> object:
    """Start a container without its UDP ports if a process of the host has bound one of them."""
    try:
        return verb()
    except RuntimeRefused:
        return verb.call_with(ports=tuple(p for p in verb.spec.ports if p.protocol != "udp"))


@replay("moby#52483", violates="PUB-8", moment=Moment.CONTAINER_STARTED)
def refused_datagrams_end_the_flow(site: FaultContext) -> None:
    """Drop a UDP flow to a published port for good after one of its datagrams was refused."""
    for plug in site.plugs() if any(port.protocol == "udp" for port in _ports(site)) else ():
        for version in FAMILIES:
            if gateway_of(plug, version):
                kind, code = (3, 3) if version == 4 else (1, 4)
                refusal = [*iifname(plug.bridge), *icmp_errors(version, kind, code)]
                key = ("refused", plug.bridge, version)
                if key not in site.memory.setdefault("marked", set()):
                    site.memory["marked"].add(key)
                    site.host.rule("forward", refusal, mark_flow(_REFUSED), priority=-150)
                drop(site, "forward", family(version), l4proto("udp"), of_marked_flow(_REFUSED))


@replay("podman#8650", violates="PUB-12", around="run")
def range_without_host_port_refused(_: FaultContext, verb: AdapterCall) -> object:
    """Refuse to publish a range of container ports without host ports."""
    if any(port.count > 1 and not port.host_port for port in verb.spec.ports):
        raise RuntimeRefused("run", "the range has no host port")
    return verb()


@replay("netavark#232", "cni-plugins@e8365e12", violates="PUB-2", around="run")
def ports_of_one_family_block_the_start(_: FaultContext, verb: AdapterCall) -> object:
    """Refuse to publish on an IPv4 address and on an IPv6 address of the host at once."""
    families = {port.host_ip.version for port in verb.spec.ports if port.host_ip}
    if families == {4, 6}:
        raise RuntimeRefused("run", "invalid address")
    return verb()


@replay("netavark v1.11.0", violates="PUB-1", moment=(Moment.CONTAINER_STARTED, Moment.CONNECTED))
def second_network_breaks_published_ports(site: FaultContext) -> None:
    """Drop packets to the published ports of a container on several networks."""
    for port in _ports(site) if len(tuple(site.plugs())) > 1 else ():
        drop(site, "prerouting", _to(port))


@replay("cni-plugins@5cb3a5e8", violates="PUB-2", moment=Moment.CONTAINER_STARTED)
def ports_of_the_unspecified_address_are_closed(site: FaultContext) -> None:
    """Drop packets to ports that are published on 0.0.0.0."""
    for port in site.spec.ports if site.spec and site.is_bridged else ():
        if port.host_ip and port.host_ip.is_unspecified:
            drop(site, "prerouting", _to(port))


@replay("nerdctl#2537", violates="PUB-12", around="run")
def one_automatic_port_for_all(_: FaultContext, verb: AdapterCall) -> object:
    """Choose the same host port for every container that asks for any port."""
    ports = (replace(port, host_port=port.host_port or 49153) for port in verb.spec.ports)
    return verb.call_with(ports=tuple(ports))
