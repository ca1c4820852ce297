"""Attach a container to a bridge by hand, as `docs/four-modes.md` explains, with pyroute2.

`attach` creates a veth pair. One end is a bridge port of the host. The other is `eth0` in the
container's netns, with addresses and a default route. The runtime is not involved and does not know
of the veth pair.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address

from harness.adapters.protocol import NetworkInfo
from harness.model.topology import Address, Interface
from harness.probe.remote import by_kernel
from harness.testbench.netns_view import iproute
from linux import rtnetlink
from linux.conntrack import Conntrack
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.readiness import await_carrier, await_local


def attach(
    host: NetNS,
    space: NetNS,
    network: NetworkInfo,
    name: str,
    *,
    taken: Collection[Address] = (),
    routed: bool = True,
) -> set[Address]:
    """Create an `eth0` in the namespace `space` on the bridge of `network`; return its addresses.

    In each subnet of the network, `eth0` gets the last usable address that is not in `taken`.
    `name` is the container's name, from which the name of the veth's host end is derived. Without
    `routed` there is no default route, as on internal networks.

    Raises `UserspaceStack` for a container with a user-space network stack, and `ValueError` if the
    network has no bridge in the host. Raises `OSError` if the namespace already has an `eth0` or a
    default route; the veth pair is then removed again.
    """
    from pyroute2.netlink.exceptions import NetlinkError  # slow to import, as in `iproute`

    by_kernel(space)
    if network.interface is None:
        raise ValueError(f"network {network.name} has no bridge in the host")
    end = host_end(name)
    own = [last_address(gateway, taken) for gateway in network.gateways]
    with iproute(host) as ip:
        (bridge,) = ip.get_links(ifname=network.interface)
        mtu = bridge.get("mtu")
        peer = {"ifname": "eth0", "net_ns_fd": space.fd, "mtu": mtu}
        if mac := _mac(own):
            peer["address"] = mac
        try:
            ip.link("add", ifname=end, kind="veth", peer=peer, mtu=mtu, master=bridge["index"])
        except NetlinkError as error:
            reason = os.strerror(error.code)
            raise OSError(error.code, f"add veth {end} with peer eth0: {reason}") from error
        try:
            ip.link("set", ifname=end, state="up")
            _configure(space, own, network.gateways if routed else ())
            with Netlink(host) as netlink:
                await_carrier(netlink, [end])
        except BaseException:
            with _gone_already(), iproute(host) as again:
                again.link("del", ifname=end)
            raise
    return {item.ip for item in own}


def _configure(space: NetNS, own: Iterable[Interface], gateways: Iterable[Interface]) -> None:
    with iproute(space) as ip:
        (eth0,) = ip.link_lookup(ifname="eth0")
        for link in (rtnetlink.LO, eth0):
            ip.link("set", index=link, state="up")
        for item in own:
            flags = rtnetlink.IFA_F_NODAD if item.version == 6 else 0
            prefix = item.network.prefixlen
            ip.addr("add", index=eth0, address=str(item.ip), prefixlen=prefix, flags=flags)
        for item in gateways:
            ip.route("add", dst="default", gateway=str(item.ip))
    with Netlink(space) as netlink:
        await_carrier(netlink, ["eth0"])
        await_local(netlink, (item.ip for item in own))


def detach(host: NetNS, name: str, addresses: set[Address]) -> None:
    """Undo `attach`: remove the veth pair, and the host's neighbours and flows of its addresses.

    The runtime does not know of these addresses, so nothing else removes these entries. A veth pair
    that no longer exists is no error.
    """
    with _gone_already(), iproute(host) as ip:
        ip.link("del", ifname=host_end(name))
    with iproute(host) as ip:
        known = [item for item in ip.get_neighbours() if ip_address(item.get("dst")) in addresses]
    for entry in known:
        with _gone_already(), iproute(host) as ip:
            ip.neigh("del", ifindex=entry["ifindex"], dst=entry.get("dst"))
    with Conntrack(host) as conntrack:
        conntrack.forget(conntrack.of(addresses))


@contextlib.contextmanager
def _gone_already() -> Iterator[None]:
    """Suppress errors of the body that mean that the object to remove no longer exists."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise


def host_end(name: str) -> str:
    """Return the name of the veth's host end; a digest makes it unique within 15 characters."""
    return f"hand{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _mac(own: Iterable[Interface]) -> str | None:
    """Return a MAC derived from the IPv4 address, so that a reused address keeps its MAC.

    A neighbour that has just learned one MAC ignores another MAC for a second (`locktime`, arp(7)),
    and keeps sending to the first.
    """
    for item in own:
        if item.version == 4:
            return "02:42:" + rtnetlink.mac_text(item.ip.packed)
    return None


def last_address(gateway: Interface, taken: Collection[Address] = ()) -> Interface:
    """Return the last usable free address of the gateway's subnet; raise `ValueError` if none is.

    Runtimes assign addresses from the beginning of the subnet, so the last ones are free.
    """
    network = gateway.network
    kind = type(gateway)
    for number in range(network.num_addresses - 2, 0, -1):
        found = kind((int(network.network_address) + number, network.prefixlen))
        if found.ip not in taken and found.ip != gateway.ip:
            return found
    raise ValueError(f"every address of {network} is in use")
