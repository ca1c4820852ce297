"""How a container is plugged into a network, whatever its driver, and taken off again.

One batch makes the link, with its end already inside the container's namespace; a
second one, in there, brings it up with its addresses and, at first, the default routes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from ipaddress import ip_interface
from typing import Final, NamedTuple, Self

from linux import netstate, rtnl
from linux.carrier import await_carrier, await_local
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS
from runtime.errors import ConflictError, UnsupportedError
from runtime.net import bridge, macvlan, routes, sysctl
from runtime.net.announce import announce
from runtime.net.ipam import mac_of
from runtime.records import Address, Endpoint, Interface, NetworkConfig

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


class Plug(NamedTuple):
    """A container's place on a network, with that network's bridge, if it has one."""

    network: NetworkConfig
    endpoint: Endpoint
    bridge: netstate.Link | None = None


class Bench:
    """What a container is wired with: sockets in the host and in its namespace."""

    def __init__(self, netns: NetNS) -> None:
        """For the container in whose namespace this is, from the host's."""
        self.netns, self.host, self.inside = netns, Netlink(), Netlink(netns)

    def close(self) -> None:
        """Close them; a second call does nothing."""
        for opened in (self.host, self.inside):
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attach(bench: Bench, plugs: Sequence[Plug], *, first: bool = False) -> None:
    """Plug a container into networks, and bring `lo` up; usable on return.

    With `first` nobody has been in its namespace yet, and it gets its default routes.
    Those of one that runs are `routes.settle`'s.
    """
    for plug in plugs:
        _link(bench, plug)
    with bench.netns.entered():
        for plug in plugs:
            bridge.set_ipv6(plug.endpoint.interface, on=bool(plug.network.subnet6))
    names = [plug.endpoint.interface for plug in plugs]
    indexes = {link.name: link.ifindex for link in netstate.links_named(bench.inside, names)}
    addresses = {plug.endpoint.interface: _addresses(plug.endpoint) for plug in plugs}
    batch = [rtnl.set_link(rtnl.LO, up=True)]
    for plug in plugs:
        name = plug.endpoint.interface
        batch += [rtnl.add_address(indexes[name], address) for address in addresses[name]]
        batch.append(rtnl.set_link(indexes[name], up=True))
    if first:
        batch += routes.first([plug.endpoint for plug in plugs], indexes)
    try:
        for plug in plugs:
            if plug.bridge is None:
                macvlan.bring_up(bench.inside, indexes[plug.endpoint.interface])
        bench.inside.send(batch)
    except NetlinkError as error:
        raise _not_furnished(bench, plugs, error) from error
    for plug in plugs:
        if plug.bridge is not None:
            bridge.wait_until_forwarding(bench.host, plug.bridge, plug.endpoint)
            if plug.endpoint.address6:  # without a carrier there is no route to ff02::1 yet
                await_carrier(bench.inside, [plug.endpoint.interface])
    # Whoever is told of an address may send to it at once.
    await_local(bench.inside, (item.ip for own in addresses.values() for item in own))
    with bench.netns.entered():
        for name, mac in ((plug.endpoint.interface, plug.endpoint.mac) for plug in plugs):
            announce(bench.inside, indexes[name], name, mac, [item.ip for item in addresses[name]])


def _not_furnished(
    bench: Bench, plugs: Sequence[Plug], error: NetlinkError
) -> UnsupportedError | NetlinkError:
    """Why what is in a container could not be set up: its own settings may be against it."""
    with bench.netns.entered():
        for network, endpoint, _ in plugs:
            key = f"net.ipv6.conf.{endpoint.interface}.disable_ipv6"
            if network.subnet6 and sysctl.read(key) == "1":
                return UnsupportedError(
                    f"give {endpoint.interface} the address {endpoint.address6}",
                    "IPv6 is switched off in this container",
                    f"{key} is 1, as net.ipv6.conf.default.disable_ipv6 was",
                    f"switch it on inside, or a network without IPv6 in place of {network.name}",
                )
    return error


def _addresses(endpoint: Endpoint) -> list[Interface]:
    return [ip_interface(item) for item in (endpoint.address, endpoint.address6) if item]


def _link(bench: Bench, plug: Plug) -> None:
    network, endpoint, master = plug
    try:
        if master is None:
            macvlan.add(bench.host, bench.netns, bench.inside, network, endpoint)
        else:
            bridge.add_pair(bench.host, bench.netns, network, endpoint, master=master.ifindex)
    except NetlinkError as error:
        raise bridge.refused(f"plug {endpoint.interface} into {network.name}", error) from error


def unplug(netns: NetNS, interface: str) -> None:
    """Take a running container's link away; one that is not there is no failure."""
    with Netlink(netns) as inside:
        inside.send([rtnl.del_link(interface)], missing_ok=True)


def detach(*identities: str, keep: Collection[str] = ()) -> None:
    """Remove every veth end of these containers but those to `keep`, whoever left them.

    Several in one step: before a link is gone the kernel waits until nobody can be looking
    at it any more, as long for one as for a thousand.
    """
    ends = {veth_name(identity, number) for identity in identities for number in range(ENDS)}
    with Netlink() as host:
        if len(identities) == 1:
            host.send([rtnl.del_link(name) for name in ends.difference(keep)], missing_ok=True)
            return
        there = ends.intersection(link.name for link in netstate.links(host)).difference(keep)
        group = int.from_bytes(os.urandom(4)) >> 1 | 1  # signed, and 0 is everybody's
        host.send([rtnl.set_link(0, name=name, group=group) for name in there], missing_ok=True)
        host.send([rtnl.del_group(group)], missing_ok=True)
