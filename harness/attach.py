"""The manual attach: what `docs/four-modes.md` does with `ip`, done through netlink.

A veth pair is made in the host, one end becomes a port of the bridge, the other
is moved into the container's namespace, renamed `eth0`, addressed and given a
default route. The runtime takes no part in it and knows nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface

from harness.adapters.protocol import NetworkFacts
from harness.topology import Address, Interface
from linux import netstate, rtnl
from linux.carrier import await_carrier
from linux.conntrack import Conntrack
from linux.netlink import Netlink
from linux.netns import NetNS


def attach(host: NetNS, space: NetNS, network: NetworkFacts, name: str) -> set[Address]:
    """Give the namespace `space` an `eth0` on the bridge of `network`.

    `name` is the container's; the host end is called after it. The address, which is
    returned, is the last usable one of each subnet of the network.
    Raises `ValueError` when the network has no bridge in the host, and `NetlinkError`,
    with the pair gone again, when the namespace has an `eth0` or a default route already.
    """
    if network.interface is None:
        raise ValueError(f"network {network.name} has no bridge in the host to attach to")
    end = host_end(name)
    with Netlink(host) as netlink:
        bridge = netstate.link(netlink, network.interface)
        pair = rtnl.add_veth(end, f"{end}p", up=False, mtu=bridge.mtu, peer_mac=_mac(network))
        netlink.send([pair])
    try:
        _plug_in(host, bridge.ifindex, end, space, network.gateways)
    except BaseException:
        with Netlink(host) as netlink:
            netlink.send([rtnl.del_link(end)], missing_ok=True)
        raise
    return {last_address(gateway).ip for gateway in network.gateways}


def _plug_in(
    host: NetNS, bridge: int, end: str, space: NetNS, gateways: Iterable[Interface]
) -> None:
    with Netlink(host) as netlink:
        near, far = netstate.link(netlink, end), netstate.link(netlink, f"{end}p")
        netlink.send(
            [
                rtnl.set_link(near.ifindex, master=bridge, up=True),
                rtnl.set_link(far.ifindex, netns=space.fd),
            ]
        )
    with Netlink(space) as netlink:
        index = netstate.link(netlink, f"{end}p").ifindex
        requests = [
            rtnl.set_link(index, name="eth0"),
            rtnl.set_link(rtnl.LO, up=True),
            rtnl.set_link(index, up=True),
        ]
        for gateway in gateways:
            requests.append(rtnl.add_address(index, last_address(gateway)))
            requests.append(rtnl.add_route(None, via=gateway.ip))
        netlink.send(requests)
        await_carrier(netlink, ["eth0"])
    with Netlink(host) as netlink:
        await_carrier(netlink, [end])


def detach(host: NetNS, name: str, addresses: set[Address]) -> None:
    """Undo `attach`: remove the pair, if it is still there, and what the host remembers.

    The runtime knows nothing of these addresses, so that nobody else would.
    """
    with Netlink(host) as netlink:
        known = [item for item in netstate.neighbours(netlink) if item.address in addresses]
        forgotten = [rtnl.del_neighbour(item.ifindex, item.address) for item in known]
        netlink.send([rtnl.del_link(host_end(name)), *forgotten], missing_ok=True)
    with Conntrack(host) as conntrack:
        flows = conntrack.all()
        conntrack.forget(flow for flow in flows if not flow.addresses.isdisjoint(addresses))


def host_end(name: str) -> str:
    """The host end's interface name: at most 15 characters, told apart by a digest."""
    return f"hand{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _mac(network: NetworkFacts) -> str | None:
    """A MAC that goes with the address, so that an address attached again keeps its MAC.

    A neighbour that has just learnt another one would not believe a new one for a
    second (`locktime`, arp(7)), and send into the void meanwhile.
    """
    for gateway in network.gateways:
        if gateway.version == 4:
            return "02:42:" + rtnl.mac_text(last_address(gateway).ip.packed)
    return None


def last_address(gateway: IPv4Interface | IPv6Interface) -> IPv4Interface | IPv6Interface:
    """The last usable address of the gateway's subnet: runtimes count from the first."""
    network = gateway.network
    if isinstance(gateway, IPv4Interface):
        return IPv4Interface((int(network.broadcast_address) - 1, network.prefixlen))
    return IPv6Interface(
        (int(network.network_address) + network.num_addresses - 2, network.prefixlen)
    )
