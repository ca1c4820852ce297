"""The manual attach: what `docs/four-modes.md` does with `ip`, done through netlink.

A veth pair is created in the host, one end becomes a bridge port, the other is moved into the
container's netns, renamed `eth0`, and gets addresses and a default route. The runtime takes no part
in it and does not know of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from harness.adapters.protocol import NetworkInfo
from harness.model.topology import Address, Interface
from harness.probe.remote import by_kernel
from linux import rtnetlink, rtnetlink_dump
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
    """Give the namespace `space` an `eth0` on the bridge of `network`.

    `name` is the container's; the host end's name derives from it. Return the addresses: in each
    subnet of the network the last usable one that is not `taken`. Without `routed` there is no
    default route, as on networks without a way out.

    Raises `OwnStack` for a container with a network stack of its own, `ValueError` when the network
    has no bridge in the host, and `NetlinkError`, with the pair removed again, when the namespace
    has an `eth0` or a default route already.
    """
    by_kernel(space)
    if network.interface is None:
        raise ValueError(f"network {network.name} has no bridge in the host to attach to")
    end = host_end(name)
    with Netlink(host) as netlink:
        bridge = rtnetlink_dump.link(netlink, network.interface)
        own = [last_address(gateway, taken) for gateway in network.gateways]
        pair = rtnetlink.add_veth(end, f"{end}p", up=False, mtu=bridge.mtu, peer_mac=_mac(own))
        netlink.send([pair])
    try:
        _join_bridge(host, bridge.ifindex, end, space)
        _configure(space, f"{end}p", own, network.gateways if routed else ())
        with Netlink(host) as netlink:
            await_carrier(netlink, [end])
    except BaseException:
        with Netlink(host) as netlink:
            netlink.send([rtnetlink.del_link(end)], missing_ok=True)
        raise
    return {item.ip for item in own}


def _join_bridge(host: NetNS, bridge: int, end: str, space: NetNS) -> None:
    with Netlink(host) as netlink:
        near, far = rtnetlink_dump.link(netlink, end), rtnetlink_dump.link(netlink, f"{end}p")
        netlink.send(
            [
                rtnetlink.set_link(near.ifindex, master=bridge, up=True),
                rtnetlink.set_link(far.ifindex, netns=space.fd),
            ]
        )


def _configure(
    space: NetNS, link: str, own: Iterable[Interface], gateways: Iterable[Interface]
) -> None:
    with Netlink(space) as netlink:
        index = rtnetlink_dump.link(netlink, link).ifindex
        requests = [
            rtnetlink.set_link(index, name="eth0"),
            rtnetlink.set_link(rtnetlink.LO, up=True),
            rtnetlink.set_link(index, up=True),
        ]
        requests += [rtnetlink.add_address(index, item) for item in own]
        requests += [rtnetlink.add_route(None, via=item.ip) for item in gateways]
        netlink.send(requests)
        await_carrier(netlink, ["eth0"])
        await_local(netlink, (item.ip for item in own))


def detach(host: NetNS, name: str, addresses: set[Address]) -> None:
    """Undo `attach`: remove the pair, if it still exists, and the host's entries for its addresses.

    The runtime does not know of these addresses, so that nothing else would remove them.
    """
    with Netlink(host) as netlink:
        known = [item for item in rtnetlink_dump.neighbours(netlink) if item.address in addresses]
        forgotten = [rtnetlink.del_neighbour(item.ifindex, item.address) for item in known]
        netlink.send([rtnetlink.del_link(host_end(name)), *forgotten], missing_ok=True)
    with Conntrack(host) as conntrack:
        conntrack.forget(conntrack.of(addresses))


def host_end(name: str) -> str:
    """Return the host end's interface name: at most 15 characters, made unique by a digest."""
    return f"hand{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _mac(own: Iterable[Interface]) -> str | None:
    """Return a MAC that derives from the address, so that a reused address keeps its MAC.

    A neighbour that has just learnt another MAC would not accept a new one for a second
    (`locktime`, arp(7)), and would send to the old one meanwhile.
    """
    for item in own:
        if item.version == 4:
            return "02:42:" + rtnetlink.mac_text(item.ip.packed)
    return None


def last_address(gateway: Interface, taken: Collection[Address] = ()) -> Interface:
    """Return the last usable free address of the gateway's subnet: runtimes count from the first.

    `ValueError` when all are taken.
    """
    network = gateway.network
    kind = type(gateway)
    for number in range(network.num_addresses - 2, 0, -1):
        found = kind((int(network.network_address) + number, network.prefixlen))
        if found.ip not in taken and found.ip != gateway.ip:
            return found
    raise ValueError(f"every address of {network} is taken")
