"""How a container is plugged into a network, whatever its driver, and taken off again.

One batch makes the link, with its end already inside the container's namespace; a
second one, in there, brings it up with its addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import ip_interface
from typing import Final

from linux import netstate, rtnl
from linux.carrier import await_carrier
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS
from runtime.errors import ConflictError
from runtime.net import bridge, macvlan
from runtime.net.announce import Voice
from runtime.net.ipam import mac_of
from runtime.records import Address, Endpoint, NetworkConfig

ENDS: Final = 16
"""How many networks a container may be on."""


def veth_name(identity: str, number: int) -> str:
    """The host end of a container's `eth<number>`.

    Derived from the id, so that what a killed start left can be found again.
    """
    return f"veth{identity[:10]}{number:x}"


def free_number(asked: str, netns: NetNS) -> int:
    """The lowest n for which there is no `eth<n>` inside."""
    with Netlink(netns) as inside:
        taken = {link.name for link in netstate.links(inside)}
    for number in range(ENDS):
        if f"eth{number}" not in taken:
            return number
    raise ConflictError(asked, f"it is on {ENDS} networks already")


def endpoint(
    network: NetworkConfig,
    identity: str,
    addresses: Sequence[Address],
    *,
    mac: str = "",
    number: int = 0,
) -> Endpoint:
    """How a container with these addresses sits on the network, by its `eth<number>`."""
    interfaces = [
        f"{address}/{subnet.prefixlen}"
        for address, subnet in zip(addresses, network.subnets, strict=True)
    ]
    routed = not network.internal
    return Endpoint(
        network=network.name,
        interface=f"eth{number}",
        veth=veth_name(identity, number) if network.driver == "bridge" else "",
        mac=mac or mac_of(addresses[0]),
        address=interfaces[0],
        gateway=network.gateway if routed else "",
        address6=interfaces[1] if network.subnet6 else "",
        gateway6=network.gateway6 if routed else "",
    )


def attach(netns: NetNS, network: NetworkConfig, endpoint: Endpoint, voice: Voice) -> None:
    """Plug the container in whose namespace this is, and bring `lo` up; usable on return.

    `voice` tells the neighbours. The default route is `routes.settle`'s.
    """
    try:
        if network.driver == "macvlan":
            macvlan.add(netns, network, endpoint)
        else:
            bridge.add_pair(netns, network, endpoint)
    except NetlinkError as error:
        raise bridge.refused(f"plug {endpoint.interface} into {network.name}", error) from error
    with netns.entered():
        bridge.set_ipv6(endpoint.interface, on=bool(network.subnet6))
        with Netlink() as inside:
            index = netstate.link(inside, endpoint.interface).ifindex
            addresses = [item for item in (endpoint.address, endpoint.address6) if item]
            inside.send(
                [
                    rtnl.set_link(rtnl.LO, up=True),
                    *(rtnl.add_address(index, ip_interface(item)) for item in addresses),
                    rtnl.set_link(index, up=True),
                ]
            )
    if network.driver == "bridge":
        bridge.wait_until_forwarding(network, endpoint)
        with Netlink(netns) as inside:  # without a carrier there is no route to ff02::1 yet
            await_carrier(inside, [endpoint.interface])
    for item in addresses:
        voice.announce(endpoint.interface, endpoint.mac, ip_interface(item).ip)


def unplug(netns: NetNS, interface: str) -> None:
    """Take a running container's link away; one that is not there is no failure."""
    with Netlink(netns) as inside:
        inside.send([rtnl.del_link(interface)], missing_ok=True)


def detach(identity: str, *, keep: Collection[str] = ()) -> None:
    """Remove every veth end of a container but those to `keep`, whoever left them."""
    names = [veth_name(identity, number) for number in range(ENDS)]
    with Netlink() as host:
        host.send([rtnl.del_link(name) for name in names if name not in keep], missing_ok=True)
