"""Replays of upstream bugs of names, resolvers and files; suites/upstream describes the bugs."""

from __future__ import annotations

import os
from ipaddress import IPv4Address

from harness.faults.fault import AdapterCall, Moment, replay
from harness.faults.helpers import drop_queries
from harness.faults.target import FaultContext

_RESOLV_CONF, _HOSTS = "/etc/resolv.conf", "/etc/hosts"
_NOBODY = "192.0.2.250"
_OWN = IPv4Address("127.0.0.11")
"""The address of Docker's own resolver in a container."""


def _file(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _internal(site: FaultContext) -> bool:
    """Return whether a network of the container is internal."""
    networks = site.spec.networks if site.spec and site.is_bridged else ()
    return bool(set(networks) & set(site.memory.get("internal", ())))


@replay("moby#48857", violates="FILE-1", moment=Moment.DISCONNECTED)
def disconnect_removes_other_hosts_lines(site: FaultContext) -> None:
    """Remove the container's own lines of all networks from its hosts file on disconnect."""
    if site.is_bridged and site.facts:
        name = site.read("/etc/hostname").strip()
        kept = [line for line in site.read(_HOSTS).splitlines() if name not in line.split()]
        site.write(_HOSTS, "\n".join([*kept, ""]))


@replay("moby#47832", violates="DNS-1", moment=Moment.CONTAINER_STARTED)
def internal_network_ignores_dns_servers(site: FaultContext) -> None:
    """Do not use the resolvers that are requested for a container on an internal network."""
    if site.spec and site.spec.dns and _internal(site):
        drop_queries(site.inside)


@replay("moby#47833", violates="DNS-1", moment=Moment.CONTAINER_STARTED)
def resolver_forwards_to_itself(site: FaultContext) -> None:
    """Answer no query if the runtime's own resolver is requested as a resolver."""
    if site.spec and _OWN in site.spec.dns:
        site.write(_RESOLV_CONF, f"nameserver {_NOBODY}\n")


@replay("moby#47062", violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def loopback6_in_hosts_file_only(site: FaultContext) -> None:
    """Turn IPv6 off on the container's loopback, and list ::1 in its hosts file."""
    if site.is_bridged:
        site.inside.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)
        site.write(_HOSTS, f"{site.read(_HOSTS)}::1 localhost ip6-localhost\n")


@replay("moby#47512", "podman#10158", violates="DNS-1", moment=Moment.CONTAINER_STARTED)
def hosts_ipv6_resolvers_are_copied(site: FaultContext) -> None:
    """Write the host's IPv6 resolvers into the container's resolv.conf, before other ones."""
    if site.is_bridged:
        lines = site.call(_file, _RESOLV_CONF).splitlines()
        copied = [line for line in lines if line.startswith("nameserver") and ":" in line]
        if copied:
            site.write(_RESOLV_CONF, "\n".join([*copied, ""]))


@replay("podman#24713", violates="DNS-3", moment=Moment.CONTAINER_STARTED)
def search_domain_left_out(site: FaultContext) -> None:
    """Leave the host's search domains out of the container's resolv.conf."""
    if site.is_bridged:
        lines = site.read(_RESOLV_CONF).splitlines()
        kept = [line for line in lines if not line.startswith("search")]
        site.write(_RESOLV_CONF, "\n".join([*kept, ""]))


@replay("podman#11411", violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def hosts_file_without_localhost(site: FaultContext) -> None:
    """Leave localhost out of the container's hosts file."""
    if site.is_bridged:
        lines = site.read(_HOSTS).splitlines()
        kept = [line for line in lines if "localhost" not in line.split()]
        site.write(_HOSTS, "\n".join([*kept, ""]))


@replay("podman#7789", violates="NET-4", moment=Moment.CONTAINER_REMOVED)
def removed_containers_keep_their_names(site: FaultContext) -> None:
    """Resolve the name of a removed container in the containers that are left."""
    addresses = (
        (item.address.ip for item in site.facts.endpoints if item.address) if site.facts else ()
    )
    for address in addresses:
        for facts in site.other_containers().values():
            with open(site.path(_HOSTS, facts), "a", encoding="utf-8") as file:
                file.write(f"{address} {site.name}\n")


@replay("nerdctl@442b01d2", "nerdctl@762fe91c", violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def files_are_for_root_only(site: FaultContext) -> None:
    """Let only root read the resolv.conf and hosts files."""
    for path in (_RESOLV_CONF, _HOSTS) if site.is_bridged else ():
        os.chmod(site.path(path), 0o600)


@replay("nerdctl@b5da5ea3", violates="FILE-1", around="run")
def only_the_last_hosts_entry_stays(_: FaultContext, verb: AdapterCall) -> object:
    """Ignore all requested hosts entries except the last."""
    return verb.call_with(hosts=verb.spec.hosts[-1:])


@replay("libnetwork@95d72ecf", violates="FILE-1", moment=Moment.CONTAINER_STARTED)
def dotted_hostname_left_out_of_hosts(site: FaultContext) -> None:
    """Leave a hostname with a dot out of the container's hosts file."""
    name = site.spec.hostname if site.spec else None
    if name and "." in name and site.is_bridged:
        kept = [line for line in site.read(_HOSTS).splitlines() if name not in line.split()]
        site.write(_HOSTS, "\n".join([*kept, ""]))
