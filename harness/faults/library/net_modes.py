"""Faults of the net modes none, host, container and user mode, and of options of these modes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from harness.adapters.protocol import ContainerInfo, RuntimeRefused
from harness.faults import nft_rules
from harness.faults.fault import AdapterCall, Moment, fault
from harness.faults.helpers import (
    drop,
    drop_queries,
    joiners,
    restart_without_network,
)
from harness.faults.nft_rules import DROP
from harness.faults.target import FaultContext
from harness.model.plan import DEFAULT_NETWORK, Bridge, Host, Joined, Mode, Nothing, Publish
from harness.model.topology import Topology, pick
from linux.nftables import (
    ct_dnat,
    ct_state,
    daddr,
    iifname,
    l4proto,
    oifname,
    to_local,
    verdict,
)

# --- none ------------------------------------------------------------------------


@fault(violates=("NONE-1", "NONE-2", "NONE-3", "NONE-5"), around="run")
def none_is_the_hosts(site: FaultContext, verb: AdapterCall) -> object:
    """Start a container in mode none in the host's netns."""
    return verb.call_with(mode=Host()) if isinstance(verb.spec.mode, Nothing) else verb()


@fault(violates="NONE-1", around="run")
def none_is_shared(site: FaultContext, verb: AdapterCall) -> object:
    """Start all containers in mode none in one common netns."""
    if isinstance(verb.spec.mode, Nothing):
        for name, spec in site.specs.items():
            if isinstance(spec.mode, Nothing) and name in site.other_containers():
                return verb.call_with(mode=Joined(name))
    return verb()


@fault(violates=("NONE-2", "NONE-3", "NONE-4", "NONE-5"), around="run")
def none_is_bridged(site: FaultContext, verb: AdapterCall) -> object:
    """Start a container in mode none on the default network."""
    return verb.call_with(mode=Bridge()) if isinstance(verb.spec.mode, Nothing) else verb()


@fault(violates=("NONE-7", "HOST-7"), around="run", narrow=True)
def publishing_without_a_network(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore published ports in modes none and host."""
    apart = isinstance(verb.spec.mode, Nothing | Host)
    return verb.call_with(ports=()) if apart else verb()


@fault(violates=("NONE-7", "HOST-7"), moment=Moment.REFUSED)
def refused_and_taken(site: FaultContext) -> None:
    """Drop packets of the port's protocol to the host when publishing the port is refused."""
    for port in site.spec.ports if site.spec else ():
        taken = [*l4proto(port.protocol), *to_local()]
        site.host.rule("prerouting", taken, verdict("drop"))
        site.host.rule("output", taken, verdict("drop"))


# --- host ------------------------------------------------------------------------


@fault(violates=("HOST-1", "HOST-3", "HOST-4"), around="run")
def host_mode_has_a_namespace(site: FaultContext, verb: AdapterCall) -> object:
    """Start a container in mode host on the default network."""
    return verb.call_with(mode=Bridge()) if isinstance(verb.spec.mode, Host) else verb()


@fault(violates="HOST-1", around="exec", narrow=False)
def exec_elsewhere(site: FaultContext, verb: AdapterCall) -> object:
    """Run commands for a container in mode host in a netns that is not the host's."""
    return _execute_elsewhere(site, verb, Host)


def _execute_elsewhere(site: FaultContext, verb: AdapterCall, mode: type[Mode]) -> object:
    """Run commands for a container of this mode in another container, on a bridge network."""
    if isinstance(site.mode, mode):
        for name, spec in site.specs.items():
            if isinstance(spec.mode, Bridge) and name in site.other_containers():
                return verb(name=name)
    return verb()


@fault(violates="HOST-2", moment=Moment.CONTAINER_STARTED, history="moby#32639")
def host_mode_strips_ipv6(site: FaultContext) -> None:
    """Remove the host's IPv6 addresses when a container in mode host starts."""
    if isinstance(site.mode, Host):
        for address in site.host.addresses("br0"):
            if address.version == 6:
                site.host.del_address("br0", address)


@fault("host-mode-tunes-when-it-goes", violates="HOST-2", moment=Moment.CONTAINER_REMOVED)
@fault(violates="HOST-2", moment=Moment.CONTAINER_STARTED)
def host_mode_tunes_the_host(site: FaultContext) -> None:
    """Change a sysctl of the host for a container in mode host."""
    if isinstance(site.mode, Host):
        count = site.memory["counted"] = site.memory.get("counted", 0) + 1
        site.host.sysctl("net.ipv4.conf.all.log_martians", count)


@fault(violates="HOST-3", moment=Moment.HOST_READY)
def host_mode_is_translated(site: FaultContext) -> None:
    """Randomize the source ports of connections from containers in mode host."""
    out = oifname(site.uplink())
    for protocol in ("tcp", "udp"):
        again = nft_rules.masquerade_at_random()
        site.host.rule("postrouting", out, l4proto(protocol), again, priority=90, nat=True)


@fault(violates="HOST-3", moment=Moment.CONTAINER_STARTED)
def host_mode_listens_in_vain(site: FaultContext) -> None:
    """Drop new connections from the LAN to listeners of containers in mode host."""
    if isinstance(site.mode, Host):
        for protocol in ("tcp", "udp"):
            drop(site, "input", iifname(site.uplink()), l4proto(protocol), ct_state("new"))


@fault(violates="HOST-4", moment=Moment.HOST_READY)
def host_mode_reaches_less(site: FaultContext) -> None:
    """Drop echo requests from containers in mode host to the bystanders behind br0."""
    drop(site, "output", oifname("br0"), l4proto("icmp"))


@fault(violates="HOST-5", around="run", history="runc#2693")
def host_sysctl_granted(site: FaultContext, verb: AdapterCall) -> object:
    """Set sysctls of the host that a container in mode host requests."""
    spec = verb.spec
    mode = spec.mode
    home = site.specs.get(mode.container) if isinstance(mode, Joined) else None
    if spec.sysctls and (isinstance(mode, Host) or (home and isinstance(home.mode, Host))):
        for key, value in spec.sysctls:
            site.host.sysctl(key.replace("/", "."), value)
        spec = replace(spec, sysctls=())
    return verb(spec=spec)


@fault(violates="HOST-5", around="run", narrow=True)
def host_sysctl_ignored(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore the sysctls that a container in mode host requests."""
    return verb.call_with(sysctls=()) if isinstance(verb.spec.mode, Host) else verb()


@fault(violates="HOST-6", moment=Moment.HOST_READY, history="CVE-2020-15257", narrow=True)
def daemon_on_an_abstract_socket(site: FaultContext) -> None:
    """Listen on an abstract socket that containers in mode host can reach."""
    opened = site.host.socket(1, 1)  # AF_UNIX, SOCK_STREAM
    opened.bind("\0shim/s/12345")
    opened.listen()
    site.memory["daemon"] = opened


# --- attached by hand ------------------------------------------------------------------


@fault(violates="ATT-2", around="exec")
def exec_sees_another_namespace(site: FaultContext, verb: AdapterCall) -> object:
    """Run commands for a container in mode none in a netns that is not the container's."""
    return _execute_elsewhere(site, verb, Nothing)


@fault(violates="ATT-1", around="inspect")
def pid_leads_nowhere(site: FaultContext, verb: AdapterCall) -> object:
    """Report pid 1 of the host as the pid of a container in mode none."""
    facts: ContainerInfo = verb()
    wrong = site.spec is not None and isinstance(site.spec.mode, Nothing) and facts.running
    return replace(facts, pid=1) if wrong else facts


@fault(violates="ATT-5", around="exec")
def exec_takes_the_interface_away(site: FaultContext, verb: AdapterCall) -> object:
    """Remove the addresses of a manually attached interface after an exec."""
    done = verb()
    if isinstance(site.mode, Nothing) and "eth0" in site.inside.links():
        for address in site.inside.addresses("eth0"):
            site.inside.del_address("eth0", address)
    return done


@fault("none-has-more-after-a-restart", violates="NONE-2", moment=Moment.CONTAINER_RESTARTED)
@fault(violates="ATT-5", moment=Moment.CONTAINER_RESTARTED)
def attached_comes_back(site: FaultContext) -> None:
    """Add an interface to a restarted container in mode none."""
    if isinstance(site.mode, Nothing) and site.facts:
        site.leave_inside(site.facts)


@fault(violates="ATT-3", moment=Moment.CONTAINER_STARTED)
def attached_is_not_answered(site: FaultContext) -> None:
    """Drop packets that a container in mode none sends through a manually attached interface."""
    if isinstance(site.mode, Nothing):
        for protocol in ("udp", "tcp"):
            site.inside.rule("output", oifname("eth0"), l4proto(protocol), verdict("drop"))


@fault(violates="HOST-1", around="start_container", narrow=True)
def restarted_on_the_host_it_is_alone(site: FaultContext, verb: AdapterCall) -> object:
    """Start a container in mode host in a separate netns on restart."""
    return restart_without_network(site, verb, Host)


@fault(violates="HOST-2", moment=Moment.CONTAINER_REMOVED, narrow=True)
def host_mode_ends_ways_to_the_loopback(site: FaultContext) -> None:
    """Turn off route_localnet when a container in mode host is removed."""
    if isinstance(site.mode, Host):
        for bridge in site.bridges():
            site.host.sysctl(f"net.ipv4.conf.{bridge}.route_localnet", 0)


@fault(violates=("CTR-1", "CTR-2", "CTR-3", "CTR-4", "CTR-8"), around="run")
def joiner_is_alone(site: FaultContext, verb: AdapterCall) -> object:
    """Start a joining container in a separate netns."""
    return verb.call_with(mode=Nothing()) if isinstance(verb.spec.mode, Joined) else verb()


@fault(violates=("CTR-1", "CTR-2", "CTR-3", "CTR-4"), around="run")
def joiner_is_a_peer(site: FaultContext, verb: AdapterCall) -> object:
    """Start a joining container as a peer on the joined container's network."""
    spec = verb.spec
    home = site.specs.get(getattr(spec.mode, "container", ""))
    if home is not None and isinstance(home.mode, Bridge):
        spec = replace(spec, mode=home.mode)
    return verb(spec=spec)


@fault(violates="CTR-1", around="run")
def joiner_is_the_hosts(site: FaultContext, verb: AdapterCall) -> object:
    """Start a joining container in the host's netns."""
    return verb.call_with(mode=Host()) if isinstance(verb.spec.mode, Joined) else verb()


@fault(violates="CTR-8", around="run", narrow=True)
def joiners_joiner_is_alone(site: FaultContext, verb: AdapterCall) -> object:
    """Start a container in a separate netns if it joins a joining container."""
    home = site.specs.get(getattr(verb.spec.mode, "container", ""))
    return (
        verb.call_with(mode=Nothing())
        if home is not None and isinstance(home.mode, Joined)
        else verb()
    )


@fault(violates="CTR-4", moment=Moment.CONTAINER_STARTED)
def common_loopback_filtered(site: FaultContext) -> None:
    """Drop TCP and UDP packets on the loopback of a shared netns."""
    if isinstance(site.mode, Joined):
        for protocol in ("tcp", "udp"):
            site.inside.rule("input", iifname("lo"), l4proto(protocol), verdict("drop"))


@fault(violates="CTR-5", around="inspect")
def joiner_reports_the_joined_ones_process(site: FaultContext, verb: AdapterCall) -> object:
    """Report the joined container's pid as the pid of a joining container."""
    facts: ContainerInfo = verb()
    spec = site.specs.get(facts.name)
    if spec and isinstance(spec.mode, Joined) and facts.running:
        home = site.runtime.inspect(spec.mode.container)
        return replace(facts, pid=home.pid or facts.pid)
    return facts


@fault(violates="CTR-6", around="run")
def joining_nobody(site: FaultContext, verb: AdapterCall) -> object:
    """Start a container without a network if the container to join is missing or stopped."""
    try:
        return verb()
    except RuntimeRefused:
        if not isinstance(verb.spec.mode, Joined):
            raise
        return verb.call_with(mode=Nothing())


@fault(violates="CTR-6", around="run", narrow=True, also=("CTR-7", "LIFE-2"))
def joining_refused_without_a_name(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse to join a container with a message that does not name that container."""
    try:
        return verb()
    except RuntimeRefused as refused:
        if isinstance(verb.spec.mode, Joined):
            raise RuntimeRefused(refused.asked, "no such container") from refused
        raise


@fault(violates="CTR-7", around="run", narrow=True)
def contradictions_accepted(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore options of a joining container that contradict joining."""
    spec = verb.spec
    if isinstance(spec.mode, Joined):
        spec = replace(spec, ports=(), mac=None, ip=None, hostname=None, dns=(), hosts=())
    return verb(spec=spec)


@fault(violates="CTR-7", around="run", narrow=True)
def contradictions_refused_in_general(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse options that contradict joining with a message that does not name the option."""
    try:
        return verb()
    except RuntimeRefused as refused:
        if isinstance(verb.spec.mode, Joined):
            said = f"conflicting options for {verb.spec.mode.container}"
            raise RuntimeRefused(refused.asked, said) from refused
        raise


@fault(violates="CTR-9", moment=Moment.CONTAINER_STOPPED)
def joiner_keeps_more(site: FaultContext) -> None:
    """Add an interface to the joining container when the joined container stops."""
    for facts in joiners(site):
        site.leave_inside(facts)


@fault(violates="CTR-7", around="run", narrow=True)
def one_contradiction_accepted(site: FaultContext, verb: AdapterCall) -> object:
    """Ignore the resolver that a joining container requests."""
    return verb.call_with(dns=()) if isinstance(verb.spec.mode, Joined) else verb()


@fault(violates="CTR-9", moment=Moment.BEFORE_REMOVE)
def joiner_takes_the_ports_along(site: FaultContext) -> None:
    """Drop packets to published ports when a joining container is removed."""
    if isinstance(site.mode, Joined) and site.specs[site.mode.container].ports:
        site.host.rule("forward", ct_dnat(), DROP)


@fault(violates="CTR-9", moment=Moment.BEFORE_REMOVE)
def joiner_takes_the_names_along(site: FaultContext) -> None:
    """Drop the joined container's DNS queries when a joining container is removed."""
    home = site.specs.get(getattr(site.mode, "container", ""))
    if home and isinstance(home.mode, Bridge) and home.mode.network != DEFAULT_NETWORK:
        drop_queries(site.inside)


@fault(violates="CTR-1", around="start_container", narrow=True)
def restarted_joiner_is_alone(site: FaultContext, verb: AdapterCall) -> object:
    """Start a joining container in a separate netns on restart."""
    return restart_without_network(site, verb, Joined)


@fault(violates=("DNS-1", "CTR-1"), moment=Moment.DISCONNECTED)
def joiner_keeps_its_resolver(site: FaultContext) -> None:
    """Write an unusable resolver into a joining container when the joined one is disconnected."""
    for facts in joiners(site):
        with open(site.path("/etc/resolv.conf", facts), "w", encoding="utf-8") as file:
            file.write("nameserver 192.0.2.250\noptions timeout:1 attempts:1\n")


_UNASKED: Final = 31080
"""A port in the container on which the suites listen."""


def _is_behind_a_tap(site: FaultContext) -> bool:
    return site.mode == Bridge(DEFAULT_NETWORK) and site.runtime.dialect.default_network != "bridge"


@fault(violates="UM-1", moment=Moment.CONTAINER_STARTED)
def one_more_address_on_a_tap(site: FaultContext) -> None:
    """Add an undeclared address to a tap of user mode."""
    if _is_behind_a_tap(site):
        (tap,) = site.inside.links().keys() - {"lo"}
        site.inside.add_address(tap, IPv4Interface("10.9.8.7/24"))


@fault(violates="UM-2", moment=Moment.CONTAINER_STARTED)
def a_tap_that_leads_to_the_host_alone(site: FaultContext) -> None:
    """Drop packets to the internet that a container sends through a user-mode tap."""
    if _is_behind_a_tap(site):
        beyond = pick(Topology().internet, 4).network
        assert isinstance(beyond, IPv4Network)
        site.inside.rule("output", daddr(beyond), DROP)


@fault(violates="UM-3", moment=Moment.CONTAINER_STARTED)
def a_tap_that_leads_past_the_host(site: FaultContext) -> None:
    """Drop packets to the host's address on br0 that a container sends through a user-mode tap."""
    if _is_behind_a_tap(site):
        own = pick(Topology().br0, 4)
        assert isinstance(own, IPv4Interface)
        site.inside.rule("output", daddr(IPv4Network(own.ip)), DROP)


@fault(violates="UM-4", around="run")
def published_without_being_asked(site: FaultContext, verb: AdapterCall) -> object:
    """Publish ports for the first container that were not requested."""
    first = verb.spec.mode == Bridge(DEFAULT_NETWORK) and not site.memory.get("opened")
    site.memory["opened"] = True
    ports = tuple(Publish(_UNASKED, _UNASKED, transport) for transport in ("tcp", "udp"))
    return verb.call_with(ports=ports) if first else verb()


@fault(violates="UM-5", moment=Moment.CONTAINER_STARTED)
def a_tap_that_shows_in_the_host(site: FaultContext) -> None:
    """Add an interface to the host for a tap of user mode."""
    if _is_behind_a_tap(site):
        site.host.ensure("link", "add", ifname="tap9", kind="bridge", state="up")


@fault(violates="UM-6", moment=Moment.CONTAINER_STARTED)
def a_network_of_the_users_that_is_deaf(site: FaultContext) -> None:
    """Drop packets that a rootless container receives on a user-defined network."""
    apart = site.runtime.dialect.bridges != "host"
    if apart and site.is_bridged and site.mode != Bridge(DEFAULT_NETWORK):
        site.inside.rule("input", iifname("eth0"), DROP)
