"""Where a container's questions are heard: 127.0.0.11 port 53, inside its namespace.

Port 53 itself stays the container's, which may run a name server of its own on every
address. The sockets are on other ports, and two rules write the right port into what
goes there and what comes back, without tracking connections.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_network
from typing import Final, Literal, NamedTuple

from linux.netns import NetNS
from linux.nftables import (
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    daddr,
    del_table,
    dport,
    l4proto,
    saddr,
    set_port,
    sport,
)
from runtime.network.etc_files import RESOLVER

TABLE: Final = Table("inet", "mydocker")
_CHAIN: Final = "names"
_DNS: Final = 53
_RAW: Final = -300
_BACKLOG: Final = 64
_KINDS: Final[dict[Literal["udp", "tcp"], socket.SocketKind]] = {
    "udp": socket.SOCK_DGRAM,
    "tcp": socket.SOCK_STREAM,
}


class DnsSockets(NamedTuple):
    """Two sockets in a container's namespace: for datagrams, and one that listens."""

    udp: socket.socket
    tcp: socket.socket


def namespace(pidfd: int) -> NetNS:
    """The namespace of a process, to be entered; not kept alive by this: setns(2)."""
    return NetNS(os.dup(pidfd))


def open_ears(netns: NetNS, *, first: bool = False) -> DnsSockets:
    """Hear what is asked in a namespace from now on; questions wait until they are read.

    They are the `first` where nobody can have heard anything there before.
    """
    opened = {protocol: netns.socket(socket.AF_INET, kind) for protocol, kind in _KINDS.items()}
    try:
        for item in opened.values():
            item.bind((RESOLVER, 0))
        opened["tcp"].listen(_BACKLOG)
        ears = DnsSockets(opened["udp"], opened["tcp"])
        lead_to(netns, ears, first=first)
    except BaseException:
        for item in opened.values():
            item.close()
        raise
    return ears


def lead_nowhere(netns: NetNS) -> None:
    """What is asked in a namespace finds nobody, as if there had never been an ear."""
    with Nft(netns) as nft:
        nft.apply([add_table(TABLE), del_table(TABLE)])


def lead_to(netns: NetNS, ears: DnsSockets, *, first: bool = False) -> None:
    """Have what is asked in a namespace lead to these sockets, and to no others."""
    ports: dict[Literal["udp", "tcp"], int] = {
        "udp": ears.udp.getsockname()[1],
        "tcp": ears.tcp.getsockname()[1],
    }
    resolver = ip_network(RESOLVER)
    # Whatever a table held is let go of only after a grace period, which somebody waits for.
    requests = [] if first else [add_table(TABLE), del_table(TABLE)]
    requests += [
        add_table(TABLE),
        add_chain(TABLE, _CHAIN, hook="output", priority=_RAW),
    ]
    for protocol, port in ports.items():
        there = [*daddr(resolver), *l4proto(protocol), *dport(_DNS)]
        back = [*saddr(resolver), *l4proto(protocol), *sport(port)]
        requests += [
            add_rule(TABLE, _CHAIN, there, set_port("destination", protocol, port)),
            add_rule(TABLE, _CHAIN, back, set_port("source", protocol, _DNS)),
        ]
    with Nft(netns) as nft:
        nft.apply(requests)
