"""Mode bridge: a bridge in the host, and a veth pair into each container.

The pair is made with its far end already inside the container's namespace; a
second batch, in there, brings it up with address and route. Both batches are
one system call each.
"""

from __future__ import annotations

import errno
import os
import time
from ipaddress import ip_address, ip_interface
from typing import Final

from linux import netstate, rtnl
from linux.netlink import Netlink, NetlinkError, Request
from linux.netns import NetNS
from runtime.errors import ConflictError, UnsupportedError
from runtime.net import sysctl
from runtime.net.ipam import mac_of
from runtime.records import Address, Endpoint, NetworkConfig

LOOPBACK: Final = 1
ETH0: Final = 2
"""Interface indexes in a fresh namespace: `lo` is always 1, what comes next is ours to choose."""

IPV6_MIN_MTU: Final = 1280
"""Below it a link has no IPv6 at all (RFC 8200), in bytes."""

_ENDS: Final = 16
"""How many veth ends a container may have in the host."""


def veth_name(identity: str, number: int) -> str:
    """The host end of a container's `eth<number>`.

    Derived from the id, so that what a killed start left can be found again.
    """
    return f"veth{identity[:10]}{number:x}"


def bridge_mac(network: NetworkConfig) -> str:
    """The bridge's MAC: fixed, so that it does not change as ports come and go."""
    return mac_of(ip_address(network.gateway))


# --- the bridge ---------------------------------------------------------------


def _find(name: str) -> netstate.Link | None:
    with Netlink() as host:
        try:
            return netstate.link(host, name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return None


def _is_ours(link: netstate.Link, network: NetworkConfig) -> bool:
    return link.kind == "bridge" and link.mac == bridge_mac(network)


def is_up(network: NetworkConfig) -> bool:
    """Whether the network's bridge is there and is ours.

    `ConflictError` when somebody else's interface has its name.
    """
    link = _find(network.bridge)
    if link is None:
        return False
    if not _is_ours(link, network):
        raise ConflictError(
            f"use the bridge {network.bridge}",
            f"there is an interface of that name that mydocker did not make (MAC {link.mac})",
            "another container runtime lives in this network namespace",
            "run mydocker in a namespace of its own: netmodes lab",
        )
    return True


def _scratch(network: NetworkConfig) -> str:
    return f"mdk{network.id[:12]}"


def make(network: NetworkConfig) -> None:
    """Make the bridge. It gets its name last, so that a bridge of that name is complete."""
    scratch = _scratch(network)
    try:
        with Netlink() as host:
            host.send([rtnl.del_link(scratch)], missing_ok=True)
            host.send(
                [rtnl.add_bridge(scratch, mac=bridge_mac(network), mtu=network.mtu, up=False)]
            )
            index = netstate.link(host, scratch).ifindex
            _set_ipv6(scratch, on=bool(network.subnet6))
            host.send(
                [
                    *(rtnl.add_address(index, gateway) for gateway in network.gateways),
                    rtnl.set_link(index, name=network.bridge, up=True),
                ]
            )
    except NetlinkError as error:
        raise refused(f"make the bridge {network.bridge}", error) from error


def remove(network: NetworkConfig) -> None:
    """Remove the bridge, if it is there and ours, and what a killed `make` left."""
    link = _find(network.bridge)
    names = [_scratch(network)]
    if link is not None and _is_ours(link, network):
        names.append(network.bridge)
    with Netlink() as host:
        host.send([rtnl.del_link(name) for name in names], missing_ok=True)


def refused(asked: str, error: NetlinkError) -> UnsupportedError:
    """The kernel's no, with its likely cause."""
    if error.errno in (errno.EPERM, errno.EACCES):
        cause, remedy = "no CAP_NET_ADMIN in this network namespace", "netmodes lab"
    elif error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EAFNOSUPPORT):
        cause, remedy = "the kernel was built without it", "netmodes doctor"
    else:
        cause, remedy = "", ""
    return UnsupportedError(asked, str(error.strerror), cause, remedy)


def _set_ipv6(interface: str, *, on: bool) -> None:
    """IPv6 off altogether, or on without listening to router advertisements from containers.

    Nor is there duplicate address detection: mydocker gives addresses out once, and a bridge
    whose link-local address is still tentative forwards nothing for a second or two.
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
                "make an IPv6 network", "this kernel has no IPv6", remedy="leave out --ipv6"
            ) from None


# --- a container's pair -------------------------------------------------------


def attach(netns: NetNS, network: NetworkConfig, endpoint: Endpoint) -> None:
    """Connect a fresh namespace to the network and bring `lo` up; usable on return."""
    with Netlink() as host:
        pair = [
            rtnl.add_veth(
                endpoint.veth,
                endpoint.interface,
                master=netstate.link(host, network.bridge).ifindex,
                mtu=network.mtu,
                peer_netns=netns.fd,
                peer_index=ETH0,
                peer_mac=endpoint.mac,
            )
        ]
        if network.mtu >= IPV6_MIN_MTU and os.path.isdir("/proc/sys/net/ipv6"):
            pair.append(rtnl.no_link_local(endpoint.veth))
        host.send(pair)
        if not network.icc:
            host.send([rtnl.isolate_port(netstate.link(host, endpoint.veth).ifindex)])
        with netns.entered():
            _set_ipv6(endpoint.interface, on=bool(network.subnet6))
            with Netlink() as inside:
                inside.send(_inside(endpoint))
        _wait_until_forwarding(host, (endpoint.veth, network.bridge))


def _inside(endpoint: Endpoint) -> list[Request]:
    addresses = [item for item in (endpoint.address, endpoint.address6) if item]
    gateways = [item for item in (endpoint.gateway, endpoint.gateway6) if item]
    return [
        rtnl.set_link(LOOPBACK, up=True),
        *(rtnl.add_address(ETH0, ip_interface(item)) for item in addresses),
        rtnl.set_link(ETH0, up=True),
        *(rtnl.add_route(None, via=ip_address(item), oif=ETH0) for item in gateways),
    ]


def _wait_until_forwarding(host: Netlink, names: tuple[str, ...]) -> None:
    """Wait until the kernel has taken note of the carrier; before that it drops what comes.

    The notice goes through a work queue of the kernel's (link watch) and takes
    microseconds.
    """
    deadline = time.monotonic() + 5
    for name in names:
        while not netstate.link(host, name).running:
            if time.monotonic() > deadline:
                raise UnsupportedError(
                    f"bring up {name}", "it has no carrier after 5 s", remedy="ip -d link"
                )
            os.sched_yield()


def reattach(network: NetworkConfig, endpoint: Endpoint) -> None:
    """Make a running container's pair a port of the bridge again, after that was made anew."""
    with Netlink() as host:
        bridge = netstate.link(host, network.bridge).ifindex
        host.send([rtnl.set_link(0, name=endpoint.veth, master=bridge, up=True)])
        if not network.icc:
            host.send([rtnl.isolate_port(netstate.link(host, endpoint.veth).ifindex)])
        _wait_until_forwarding(host, (endpoint.veth, network.bridge))


def detach(identity: str) -> None:
    """Remove every pair of a container, also those of a start that was killed."""
    with Netlink() as host:
        host.send(
            [rtnl.del_link(veth_name(identity, number)) for number in range(_ENDS)],
            missing_ok=True,
        )


def endpoint(
    network: NetworkConfig,
    identity: str,
    addresses: list[Address],
    *,
    mac: str = "",
    number: int = 0,
) -> Endpoint:
    """How a container with these addresses sits on the network."""
    interfaces = [
        f"{address}/{subnet.prefixlen}"
        for address, subnet in zip(addresses, network.subnets, strict=True)
    ]
    routed = not network.internal
    return Endpoint(
        network=network.name,
        interface=f"eth{number}",
        veth=veth_name(identity, number),
        mac=mac or mac_of(addresses[0]),
        address=interfaces[0],
        gateway=network.gateway if routed else "",
        address6=interfaces[1] if network.subnet6 else "",
        gateway6=network.gateway6 if routed else "",
    )
