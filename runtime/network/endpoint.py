"""Connect a container to a network and disconnect it, with any network driver.

One netlink batch creates the link, with its end already inside the container's netns. A second
batch inside brings the link up with its addresses and, for a new netns, the default routes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from linux import rtnetlink, rtnetlink_dump
from linux.conntrack import Conntrack, Flow, protocol_mark
from linux.netlink import Netlink, NetlinkError, Request
from linux.netns import NetNS
from linux.readiness import await_carrier, await_local
from runtime.errors import ConflictError, UnsupportedError
from runtime.network import bridge, macvlan, sysctl
from runtime.network.ipam import mac_of
from runtime.records import Address, EndpointRecord, Interface, NetworkConfig

if TYPE_CHECKING:
    from linux.conntrack import FlowWatch

ENDS: Final = 16
"""Maximum number of networks of one container."""


def veth_name(identity: str, number: int) -> str:
    """Return the name of the host end of a container's `eth<number>`.

    It derives from the ID, so that the remains of a killed start can be found.
    """
    return f"veth{identity[:10]}{number:x}"


def free_number(asked: str, netns: NetNS) -> int:
    """Return the lowest n for which the netns has no `eth<n>`."""
    with Netlink(netns) as inside:
        taken = {link.name for link in rtnetlink_dump.links(inside)}
    for number in range(ENDS):
        if f"eth{number}" not in taken:
            return number
    raise ConflictError(asked, f"the container is already on {ENDS} networks, the maximum")


def endpoint(
    network: NetworkConfig,
    identity: str,
    addresses: Sequence[Address],
    *,
    mac: str = "",
    number: int = 0,
) -> EndpointRecord:
    """Describe a container's endpoint on the network: its addresses and its `eth<number>`."""
    interfaces = [
        f"{address}/{subnet.prefixlen}"
        for address, subnet in zip(addresses, network.subnets, strict=True)
    ]
    routed = not network.internal
    return EndpointRecord(
        network=network.name,
        interface=f"eth{number}",
        veth=veth_name(identity, number) if network.driver == "bridge" else "",
        mac=mac or mac_of(addresses[0]),
        address=interfaces[0],
        gateway=network.gateway if routed else "",
        address6=interfaces[1] if network.subnet6 else "",
        gateway6=network.gateway6 if routed else "",
    )


class NewEndpoint(NamedTuple):
    """Endpoint to be created, with the network's bridge link, if it has one."""

    network: NetworkConfig
    record: EndpointRecord
    bridge: rtnetlink_dump.Link | None = None


def attach(
    netns: NetNS,
    host: Netlink,
    inside: Netlink,
    added: Sequence[NewEndpoint],
    *,
    first: bool = False,
) -> None:
    """Create the endpoints of a netns and bring `lo` up; they are usable on return.

    `host` and `inside` are sockets in the host's netns and in `netns`. With `first` the netns is
    new and gets its default routes; those of a running container are set by `settle`.
    """
    for item in added:
        _add_link(netns, host, inside, item)
    records = [item.record for item in added]
    with netns.entered():
        for item in added:
            bridge.set_ipv6(item.record.interface, on=bool(item.network.subnet6))
    names = [record.interface for record in records]
    indexes = {link.name: link.ifindex for link in rtnetlink_dump.links_named(inside, names)}
    addresses = {record.interface: _addresses(record) for record in records}
    batch = [rtnetlink.set_link(rtnetlink.LO, up=True)]
    for name in names:
        batch += [rtnetlink.add_address(indexes[name], address) for address in addresses[name]]
        batch.append(rtnetlink.set_link(indexes[name], up=True))
    if first:
        batch += first_routes(records, indexes)
    try:
        for item in added:
            if item.bridge is None:
                macvlan.bring_up(inside, indexes[item.record.interface])
        inside.send(batch)
    except NetlinkError as error:
        raise _ipv6_disabled(netns, added) or error from error
    for item in added:
        if item.bridge is not None:
            bridge.wait_until_forwarding(host, item.bridge, item.record)
            if item.record.address6:  # without a carrier there is no route to ff02::1 yet
                await_carrier(inside, [item.record.interface])
    # The addresses must be reachable as soon as a caller gets them.
    await_local(inside, (item.ip for own in addresses.values() for item in own))
    with netns.entered():
        for record in records:
            name = record.interface
            announce(inside, indexes[name], name, record.mac, [item.ip for item in addresses[name]])


def _ipv6_disabled(netns: NetNS, added: Sequence[NewEndpoint]) -> UnsupportedError | None:
    """Return an error if the container itself has disabled IPv6 on one of its interfaces."""
    with netns.entered():
        for network, record, _ in added:
            key = f"net.ipv6.conf.{record.interface}.disable_ipv6"
            if network.subnet6 and sysctl.read(key) == "1":
                return UnsupportedError(
                    f"assign {record.address6} to {record.interface}",
                    "IPv6 is disabled in the container",
                    f"{key} is 1, as net.ipv6.conf.default.disable_ipv6 was",
                    f"enable IPv6 inside, or use a network without IPv6 instead of {network.name}",
                )
    return None


def _addresses(endpoint: EndpointRecord) -> list[Interface]:
    return [ip_interface(item) for item in (endpoint.address, endpoint.address6) if item]


def _add_link(netns: NetNS, host: Netlink, inside: Netlink, added: NewEndpoint) -> None:
    network, record, master = added
    try:
        if master is None:
            macvlan.add(host, netns, inside, network, record)
        else:
            bridge.add_pair(host, netns, network, record, master=master.ifindex)
    except NetlinkError as error:
        raise bridge.refused(
            f"attach {record.interface} to network {network.name}", error
        ) from error


def unplug(netns: NetNS, interface: str) -> None:
    """Delete a running container's link; ignore a missing one."""
    with Netlink(netns) as inside:
        inside.send([rtnetlink.del_link(interface)], missing_ok=True)


def detach(*identities: str, keep: Collection[str] = ()) -> None:
    """Remove every veth end of these containers, recorded or not, except those to `keep`.

    The links of several containers are removed in one step. Before a link is gone, the kernel waits
    for an RCU grace period, as long for one link as for a thousand.
    """
    ends = {veth_name(identity, number) for identity in identities for number in range(ENDS)}
    with Netlink() as host:
        if len(identities) == 1:
            host.send([rtnetlink.del_link(name) for name in ends.difference(keep)], missing_ok=True)
            return
        there = ends.intersection(link.name for link in rtnetlink_dump.links(host)).difference(keep)
        group = int.from_bytes(os.urandom(4)) >> 1 | 1  # signed; 0 is the default group
        host.send(
            [rtnetlink.set_link(0, name=name, group=group) for name in there], missing_ok=True
        )
        host.send([rtnetlink.del_group(group)], missing_ok=True)


_ALL_NODES: Final = "ff02::1"
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")
_HOP_LIMIT: Final = 255
"""Required hop limit of an advertisement: no router has forwarded it (RFC 4861 section 7.1.2)."""
_TYPE, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x20000000, 2


def announce(inside: Netlink, index: int, name: str, mac: str, own: Sequence[Address]) -> None:
    """Announce an interface's `own` addresses to all neighbours on its link.

    Call it in the interface's netns, once the link carries packets.
    """
    for address in own:
        if isinstance(address, IPv6Address):
            _advertise(address, index, mac)
        else:
            _announce_ipv4(inside, index, name, mac)


def _announce_ipv4(inside: Netlink, index: int, name: str, mac: str) -> None:
    """Send a gratuitous ARP request, from which every neighbour updates its entry."""
    notify = f"net.ipv4.conf.{name}.arp_notify"
    before = sysctl.read(notify)
    sysctl.write(notify, "1")
    inside.send([rtnetlink.set_link(index, mac=mac)])
    sysctl.write(notify, before)


def _advertise(address: IPv6Address, index: int, mac: str) -> None:
    """Send an unsolicited advertisement with the override flag; the kernel adds the checksum."""
    target = address.packed, _TARGET_LINK_LAYER, 1, bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        opened.bind((str(address), 0))
        message = _ADVERTISEMENT.pack(_TYPE, 0, 0, _OVERRIDE, *target)
        opened.sendto(message, (_ALL_NODES, 0, 0, index))


def leading(networks: Sequence[NetworkConfig], version: Literal[4, 6]) -> NetworkConfig | None:
    """Return the network of a container's default route; `None` if no network leads out."""
    ways = [item for item in networks if not item.internal and (version == 4 or item.subnet6)]
    return min(ways, key=lambda item: item.name, default=None)


def gateway(endpoint: EndpointRecord, version: Literal[4, 6]) -> str:
    """Return the gateway of an address family, `""` if there is none."""
    return endpoint.gateway if version == 4 else endpoint.gateway6


def way_out(endpoints: Sequence[EndpointRecord], version: Literal[4, 6]) -> EndpointRecord | None:
    """Return the endpoint of the default route; `None` if no network leads out."""
    ways = [item for item in endpoints if gateway(item, version)]
    return min(ways, key=lambda item: item.network, default=None)


def first_routes(endpoints: Sequence[EndpointRecord], indexes: Mapping[str, int]) -> list[Request]:
    """Return the default routes for a netns that has none; `indexes` has the interface indexes."""
    found = []
    for version in (4, 6):
        if chosen := way_out(endpoints, version):
            via, index = ip_address(gateway(chosen, version)), indexes[chosen.interface]
            found.append(rtnetlink.add_route(None, via=via, oif=index))
    return found


def settle(netns: NetNS, endpoints: Sequence[EndpointRecord]) -> None:
    """Correct the default routes, but keep a route that mydocker did not create."""
    with Netlink(netns) as inside:
        routes = rtnetlink_dump.routes(inside)
        there = {item.via for item in routes if item.destination is None and item.via is not None}
        for version in (4, 6):
            chosen = way_out(endpoints, version)
            wanted = ip_address(gateway(chosen, version)) if chosen else None
            if wanted in there:
                continue
            ours = {ip_address(via) for item in endpoints if (via := gateway(item, version))}
            inside.send([rtnetlink.del_route(None, via=via) for via in there & ours])
            if chosen is None or wanted is None:
                continue
            index = rtnetlink_dump.link(inside, chosen.interface).ifindex
            try:
                inside.send([rtnetlink.add_route(None, via=wanted, oif=index)])
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise


_IGMP: Final = 2


def marked(flows: FlowWatch | None, *marks: bytes) -> list[Flow]:
    """Return the flows whose encoding contains one of the marks (`Conntrack.marked`).

    The flows come from the flow watch, if there is one.
    """
    if flows is not None:
        return flows.marked(*marks)
    with Conntrack() as conntrack:
        return conntrack.marked(*marks)


def drop(flows: Iterable[Flow]) -> None:
    """Delete flows from the kernel's connection tracking table."""
    if found := list(flows):
        with Conntrack() as conntrack:
            conntrack.forget(found)


def forget(addresses: Collection[Address], flows: FlowWatch | None = None) -> None:
    """Delete the neighbour entries and flows of addresses that are no longer in use.

    In a kernel without ctnetlink the flows time out. Flows of IGMP membership reports are
    deleted too, because nothing depends on them. A remaining one would make each call of the next
    ten minutes walk the kernel's whole conntrack table.
    """
    if not addresses:
        return
    with Netlink() as host:
        known = [item for item in rtnetlink_dump.neighbours(host) if item.address in addresses]
        requests = [rtnetlink.del_neighbour(item.ifindex, item.address) for item in known]
        host.send(requests, missing_ok=True)
    marks = (protocol_mark(_IGMP), *(item.packed for item in addresses))
    try:
        found = marked(flows, *marks)
    except NetlinkError:
        return
    drop(
        flow
        for flow in found
        if flow.original.protocol == _IGMP or not flow.addresses.isdisjoint(addresses)
    )
