"""Driver bridge: a bridge in the host, and a veth pair into each container.

The kernel creates the veth pair with its peer already inside the container's netns.
"""

from __future__ import annotations

import errno
import os
import time
from ipaddress import ip_address
from typing import Final

from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS
from linux.readiness import await_local
from runtime.errors import ConflictError, UnsupportedError
from runtime.network import sysctl
from runtime.network.config import IPV6_MIN_MTU
from runtime.network.ipam import mac_of
from runtime.records import EndpointRecord, NetworkConfig

_NOT_THE_LOOPBACK: Final = "3"
"""No ARP reply for addresses of scope host: 127.0.0.1, where `route_localnet` is set."""


def bridge_mac(network: NetworkConfig) -> str:
    """Return the bridge's MAC: fixed, so that it does not change as ports come and go."""
    return mac_of(ip_address(network.gateway))


# --- the bridge ---------------------------------------------------------------


def find_link(host: Netlink, name: str) -> rtnetlink_dump.Link | None:
    """Return an interface by name, if there is one."""
    try:
        return rtnetlink_dump.link(host, name)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def _is_ours(link: rtnetlink_dump.Link, network: NetworkConfig) -> bool:
    return link.kind == "bridge" and link.mac == bridge_mac(network)


def find(host: Netlink, network: NetworkConfig) -> rtnetlink_dump.Link | None:
    """Return the network's bridge, if there is one.

    `ConflictError` if an interface that mydocker did not create has its name.
    """
    link = find_link(host, network.bridge)
    if link is not None and not _is_ours(link, network):
        raise ConflictError(
            f"use the bridge {network.bridge}",
            f"mydocker did not create the interface of this name (MAC {link.mac})",
            "another container runtime uses this network namespace",
            "run mydocker in a separate network namespace, such as that of `netmodes lab`",
        )
    return link


def _scratch(network: NetworkConfig) -> str:
    return f"mdk{network.id[:12]}"


def make(network: NetworkConfig) -> None:
    """Create the bridge if it is missing; `ConflictError` as for `find`.

    The bridge gets its name last, so that a bridge with that name is complete.
    """
    scratch = _scratch(network)
    try:
        with Netlink() as host:
            if find(host, network) is not None:
                return
            host.send([rtnetlink.del_link(scratch)], missing_ok=True)
            host.send([rtnetlink.add_bridge(scratch, mac=bridge_mac(network), up=False)])
            index = rtnetlink_dump.link(host, scratch).ifindex
            set_ipv6(scratch, on=bool(network.subnet6))
            sysctl.write(f"net.ipv4.conf.{scratch}.arp_ignore", _NOT_THE_LOOPBACK)
            host.send(
                [
                    # The kernel notifies br_netfilter only of a change. Otherwise br_netfilter
                    # would assume an MTU of 1500 and drop packets that arrived in larger
                    # fragments.
                    rtnetlink.set_link(index, mtu=network.mtu),
                    *(rtnetlink.add_address(index, gateway) for gateway in network.gateways),
                    rtnetlink.set_link(index, name=network.bridge, up=True),
                ]
            )
            await_local(host, (gateway.ip for gateway in network.gateways))
    except NetlinkError as error:
        raise refused(f"create the bridge {network.bridge}", error) from error


def remove(network: NetworkConfig) -> None:
    """Remove the bridge, if it exists and is mydocker's, and the remains of a killed `make`."""
    names = [_scratch(network)]
    with Netlink() as host:
        link = find_link(host, network.bridge)
        if link is not None and _is_ours(link, network):
            names.append(network.bridge)
        host.send([rtnetlink.del_link(name) for name in names], missing_ok=True)


def refused(asked: str, error: NetlinkError) -> UnsupportedError:
    """Return the error for the kernel's refusal, with its likely cause."""
    if error.errno in (errno.EPERM, errno.EACCES):
        cause, remedy = "no CAP_NET_ADMIN in this network namespace", "netmodes lab"
    elif error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT):
        cause, remedy = "the kernel was built without the feature", "netmodes doctor"
    else:
        cause, remedy = "", ""
    return UnsupportedError(asked, str(error.strerror), cause, remedy)


def set_ipv6(interface: str, *, on: bool) -> None:
    """Disable IPv6, or enable it without accepting router advertisements from containers.

    This applies to an interface of the netns that the caller is in.

    Duplicate address detection is off too: mydocker assigns each address once, and a bridge whose
    link-local address is still tentative forwards nothing for a second or two.
    """
    name = f"net.ipv6.conf.{interface}"
    try:
        if on:
            sysctl.write(f"{name}.accept_ra", "0")
            sysctl.write(f"{name}.accept_dad", "0")
        else:
            sysctl.write(f"{name}.disable_ipv6", "1")
    except FileNotFoundError:
        if on:
            raise UnsupportedError(
                "create an IPv6 network", "this kernel has no IPv6", remedy="leave out --ipv6"
            ) from None


# --- the veth pair of a container ---------------------------------------------


def add_pair(
    host: Netlink, netns: NetNS, network: NetworkConfig, endpoint: EndpointRecord, *, master: int
) -> None:
    """Create a container's veth pair: the host end is a bridge port, the peer is still down.

    The peer is in the container's netns. `master` is the interface index of the bridge.
    """
    pair = [
        rtnetlink.add_veth(
            endpoint.veth,
            endpoint.interface,
            master=master,
            mtu=network.mtu,
            peer_netns=netns.fd,
            peer_mac=endpoint.mac,
        )
    ]
    if network.mtu >= IPV6_MIN_MTU and os.path.isdir("/proc/sys/net/ipv6"):
        pair.append(rtnetlink.no_link_local(endpoint.veth))
    host.send(pair)
    _set_port(host, network, endpoint)


def _set_port(host: Netlink, network: NetworkConfig, endpoint: EndpointRecord) -> None:
    if not network.icc:
        host.send([rtnetlink.isolate_port(rtnetlink_dump.link(host, endpoint.veth).ifindex)])


def wait_until_forwarding(
    host: Netlink, master: rtnetlink_dump.Link, endpoint: EndpointRecord
) -> None:
    """Wait until the kernel has noticed the carrier of a new bridge port.

    Before that, the kernel drops packets. The carrier event goes through the kernel's link watch
    work queue and takes microseconds.
    """
    deadline = time.monotonic() + 5
    names = [endpoint.veth]
    if not master.running:  # a bridge has a carrier once one of its ports has
        names.append(master.name)
    while late := [
        link.name for link in rtnetlink_dump.links_named(host, names) if not link.running
    ]:
        if time.monotonic() > deadline:
            raise UnsupportedError(
                f"bring up {late[0]}", "it has no carrier after 5 s", remedy="ip -d link"
            )
        os.sched_yield()


def reattach(network: NetworkConfig, endpoint: EndpointRecord) -> None:
    """Make a running container's veth pair a port of the re-created bridge.

    A container that has deleted its end has thereby deleted the pair, and stays unconnected.
    """
    with Netlink() as host:
        master = rtnetlink_dump.link(host, network.bridge)
        if endpoint.veth not in {item.name for item in rtnetlink_dump.links(host)}:
            return
        host.send([rtnetlink.set_link(0, name=endpoint.veth, master=master.ifindex, up=True)])
        _set_port(host, network, endpoint)
        wait_until_forwarding(host, master, endpoint)
