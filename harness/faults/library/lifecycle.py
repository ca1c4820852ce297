"""Faults of the lifecycle: residue, wrong refusals, and damage when the runtime crashes."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

from harness.adapters.protocol import ContainerInfo, RuntimeRefused
from harness.faults import nft_rules
from harness.faults.fault import AdapterCall, Moment, fault
from harness.faults.helpers import leave_link
from harness.faults.target import FaultContext
from harness.model.plan import DEFAULT_NETWORK, Bridge, ContainerSpec, Nothing
from linux.nftables import Table, add_chain, add_rule, add_table, counter, dport, l4proto
from linux.rtnetlink import NTF_MASTER, NUD_NOARP
from linux.syscalls import MS_BIND, mount

# --- left behind -------------------------------------------------------------------


@fault("restart-leaves-the-crash", violates="LIFE-6", moment=Moment.CRASHED)
@fault("network-leaves-a-link", violates="LIFE-1", moment=Moment.NETWORK_REMOVED)
@fault("disconnecting-leaves-a-link", violates="NET-3", moment=Moment.DISCONNECTED)
@fault(
    "failed-start-leaves-a-link",
    violates=("LIFE-2", "BR-16", "CTR-6"),
    moment=Moment.REFUSED,
    history="containerd#5768",
)
@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED, history="libnetwork#846")
def veth_stays(site: FaultContext) -> None:
    """Leave a veth pair behind in the host."""
    leave_link(site)


@fault(violates="LIFE-1", moment=(Moment.BEFORE_REMOVE, Moment.CONTAINER_REMOVED))
def neighbour_stays(site: FaultContext) -> None:
    """Leave a neighbour entry for a removed container behind."""
    if site.moment == Moment.BEFORE_REMOVE:
        site.memory["gone"] = [(plug.bridge, plug.addresses) for plug in site.plugs()]
        return
    for bridge, addresses in site.memory.get("gone", ()):
        index = site.host.link(bridge).ifindex
        for item in addresses:
            mac = "02:42:ac:11:00:fe"
            site.host.ensure("neigh", "replace", ifindex=index, dst=item.ip, lladdr=mac)


@fault(violates="LIFE-1", moment=(Moment.BEFORE_REMOVE, Moment.CONTAINER_REMOVED))
def address_stays(site: FaultContext) -> None:
    """Put a removed container's address on the host's loopback interface."""
    if site.moment == Moment.BEFORE_REMOVE:
        site.memory["gone"] = [item for plug in site.plugs() for item in plug.addresses]
        return
    for address in site.memory.get("gone", ()):
        site.host.add_address("lo", address)


@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED)
def route_stays(site: FaultContext) -> None:
    """Leave a route behind when a container is removed."""
    site.host.ensure("route", "add", dst="172.31.254.0/24", type="blackhole")


@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED)
def forwarding_entry_stays(site: FaultContext) -> None:
    """Leave a removed container's MAC in a bridge's forwarding database."""
    port = next(link for link in site.host.links().values() if link.master)
    entry = {"ifindex": port.ifindex, "lladdr": "02:42:ac:11:00:fd", "flags": NTF_MASTER}
    site.host.ensure("fdb", "add", state=NUD_NOARP, **entry)


@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED, history="moby#22397")
def rules_stay(site: FaultContext) -> None:
    """Leave an nftables rule behind when a container is removed."""
    table = Table("inet", "leftover")
    chain = add_chain(table, "forward", hook="forward")
    site.host.firewall(add_table(table), chain, add_rule(table, "forward", counter()))


@fault(violates="LIFE-1", moment=Moment.BEFORE_REMOVE, history="moby#32090")
def namespace_is_held(site: FaultContext) -> None:
    """Keep a removed container's netns open in a helper process."""
    if site.facts:
        held = f"exec 9</proc/{site.facts.pid}/ns/net; exec sleep 2147483647"
        site.spawn("sh", "-c", held)


@fault(violates="LIFE-1", moment=Moment.BEFORE_REMOVE, history="podman#858")
def namespace_is_named(site: FaultContext) -> None:
    """Keep a removed container's netns bind-mounted to a file."""
    if site.facts:
        site.call(_name, site.facts.pid, f"/run/netns-{site.name}")


def _name(pid: int, path: str) -> None:
    with open(path, "wb"):
        mount(f"/proc/{pid}/ns/net", path, flags=MS_BIND)


@fault(
    "failed-start-leaves-a-process",
    violates="LIFE-2",
    moment=Moment.REFUSED,
    history="podman#18205",
)
@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED)
def process_stays(site: FaultContext) -> None:
    """Leave a helper process running."""
    site.spawn("sleep", "2147483647")


# --- refusals ----------------------------------------------------------------------


@fault(violates="LIFE-2", around="run")
def failed_start_keeps_its_name(site: FaultContext, verb: AdapterCall) -> object:
    """Keep the name of a container that could not be started."""
    try:
        return verb()
    except RuntimeRefused:
        if isinstance(verb.spec.mode, Bridge):
            verb(spec=ContainerSpec(verb.spec.name, Nothing()))
        raise


@fault(violates="LIFE-5", around="remove", narrow=True)
def removing_nobody_succeeds(site: FaultContext, verb: AdapterCall) -> None:
    """Report success on removal of a missing container, contrary to the dialect."""
    for name in verb.names:
        try:
            verb(names=(name,))
        except RuntimeRefused:
            continue


@fault(violates="LIFE-5", around=("inspect", "stop_container"))
def unknown_names_are_known(site: FaultContext, verb: AdapterCall) -> object:
    """Report that an unknown name is a stopped container."""
    try:
        return verb()
    except RuntimeRefused:
        return ContainerInfo(id="0" * 64, name=verb.name, pid=0, running=False)


@fault(violates="LIFE-5", around="stop_container", narrow=True)
def stopping_twice_is_refused(site: FaultContext, verb: AdapterCall) -> None:
    """Refuse to stop a stopped container, contrary to the dialect."""
    if site.facts and not site.facts.running:
        raise RuntimeRefused(f"stop {verb.name}", "it does not run")
    verb()


# --- ends and beginnings -------------------------------------------------------------


@fault(violates="LIFE-3", around="inspect", narrow=True)
def the_dead_are_running(site: FaultContext, verb: AdapterCall) -> object:
    """Report a container as running after its process was killed."""
    facts: ContainerInfo = verb()
    known = site.memory.setdefault("alive", {})
    if facts.running:
        known[facts.name] = facts
    elif facts.name in known and facts.exit_code == _KILLED:
        return replace(facts, running=True, pid=0)
    return facts


_KILLED = 137


@fault(violates="LIFE-3", around="start_container", narrow=True)
def the_dead_cannot_be_started(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse to restart a container whose process was killed."""
    if site.facts and site.facts.exit_code == _KILLED:
        raise RuntimeRefused(f"start {verb.name}", "its network is in use")
    return verb()


@fault(violates="LIFE-4", around="run")
def starts_at_once_are_refused(site: FaultContext, verb: AdapterCall) -> object:
    """Refuse one of several concurrent starts because the runtime is busy."""
    if os.getpid() % 4 == 0 and os.getppid() != 1:
        raise RuntimeRefused(f"run {verb.spec.name}", "database is locked")
    return verb()


@fault(violates="LIFE-6", moment=Moment.CRASHED)
def crash_takes_everybody_down(site: FaultContext) -> None:
    """Take down the links of running containers when the runtime is killed."""
    for facts in site.other_containers().values():
        if site.netns_of(facts).place.identity != site.host.place.identity:
            site.netns_of(facts).set_link("eth0", up=False)


@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED)
def policy_rule_stays(site: FaultContext) -> None:
    """Leave a policy rule behind when a container is removed."""
    count = site.memory["rules"] = site.memory.get("rules", 3000) + 1
    site.host.ensure("rule", "add", iifname="gone0", table=254, priority=count)


@fault(violates="LIFE-1", moment=Moment.CONTAINER_REMOVED)
def ipv6_route_stays(site: FaultContext) -> None:
    """Leave an IPv6 route behind when a container is removed."""
    count = site.memory["routes"] = site.memory.get("routes", 0) + 1
    site.host.ensure("route", "add", dst=f"fd00:dead:{count:x}::/48", type="blackhole")


@fault(violates="HOST-6", moment=Moment.HOST_READY, narrow=True)
def daemon_takes_abstract_datagrams(site: FaultContext) -> None:
    """Bind an abstract datagram socket that containers in mode host can reach."""
    opened = site.host.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    opened.bind("\0journal")
    site.memory["daemon"] = opened


@fault(violates="LIFE-1", moment=Moment.CONTAINER_STARTED)
def traffic_control_stays(site: FaultContext) -> None:
    """Leave a clsact qdisc on the uplink."""
    site.host.ensure("tc", "add", "clsact", index=site.host.link(site.uplink()).ifindex)


@fault(violates="LIFE-6", moment=Moment.CRASHED)
def crash_ends_names(site: FaultContext) -> None:
    """Drop DNS queries on user-defined networks after the runtime is killed."""
    for facts in site.other_containers().values():
        if any(endpoint.network != DEFAULT_NETWORK for endpoint in facts.endpoints):
            site.netns_of(facts).rule("output", l4proto("udp"), dport(53), nft_rules.DROP)
