"""The default route of a container that is on several networks.

Docker's rule: of the networks that have a way out, not internal ones, the first by
name (https://docs.docker.com/engine/network/), for each family by itself.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Literal

from linux import netstate, rtnl
from linux.netlink import Netlink, NetlinkError, Request
from linux.netns import NetNS
from runtime.records import Endpoint, NetworkConfig


def leading(networks: Sequence[NetworkConfig], version: Literal[4, 6]) -> NetworkConfig | None:
    """The network by which a container on all of these leaves; `None` when none leads out."""
    ways = [item for item in networks if not item.internal and (version == 4 or item.subnet6)]
    return min(ways, key=lambda item: item.name, default=None)


def gateway(endpoint: Endpoint, version: Literal[4, 6]) -> str:
    """The gateway of a family, `""` where there is none."""
    return endpoint.gateway if version == 4 else endpoint.gateway6


def way_out(endpoints: Sequence[Endpoint], version: Literal[4, 6]) -> Endpoint | None:
    """Where the default route leads; `None` when no network leads out."""
    ways = [item for item in endpoints if gateway(item, version)]
    return min(ways, key=lambda item: item.network, default=None)


def first(endpoints: Sequence[Endpoint], indexes: Mapping[str, int]) -> list[Request]:
    """The default routes of a namespace that has none yet; `indexes` are its interfaces'."""
    found = []
    for version in (4, 6):
        chosen = way_out(endpoints, version)
        if chosen is not None:
            via, index = ip_address(gateway(chosen, version)), indexes[chosen.interface]
            found.append(rtnl.add_route(None, via=via, oif=index))
    return found


def settle(netns: NetNS, endpoints: Sequence[Endpoint]) -> None:
    """Have the default routes lead where they should; one that somebody else made stays."""
    with Netlink(netns) as inside:
        there = {
            route.via
            for route in netstate.routes(inside)
            if route.destination is None and route.via is not None
        }
        for version in (4, 6):
            chosen = way_out(endpoints, version)
            wanted = ip_address(gateway(chosen, version)) if chosen else None
            if wanted in there:
                continue
            ours = {ip_address(via) for item in endpoints if (via := gateway(item, version))}
            inside.send([rtnl.del_route(None, via=via) for via in there & ours])
            if chosen is None or wanted is None:
                continue
            index = netstate.link(inside, chosen.interface).ifindex
            try:
                inside.send([rtnl.add_route(None, via=wanted, oif=index)])
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
