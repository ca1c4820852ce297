"""Sockets of a container's resolver: 127.0.0.11 port 53, inside the container's netns.

Port 53 itself stays free for the container, which may run a name server on every address. The
sockets have other ports, and two nft rules rewrite the port of queries and of replies, without
connection tracking.
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
    """Two sockets in a container's netns: one for datagrams and a listener."""

    udp: socket.socket
    tcp: socket.socket


def namespace(pidfd: int) -> NetNS:
    """Return the netns of a process for setns(2); the result does not keep the netns alive."""
    return NetNS(os.dup(pidfd))


def open_dns_sockets(netns: NetNS, *, first: bool = False) -> DnsSockets:
    """Open the resolver's sockets in a netns; the kernel queues queries until they are read.

    Set `first` if the netns cannot have had such sockets before.
    """
    opened = {protocol: netns.socket(socket.AF_INET, kind) for protocol, kind in _KINDS.items()}
    try:
        for item in opened.values():
            item.bind((RESOLVER, 0))
        opened["tcp"].listen(_BACKLOG)
        sockets = DnsSockets(opened["udp"], opened["tcp"])
        redirect_queries(netns, sockets, first=first)
    except BaseException:
        for item in opened.values():
            item.close()
        raise
    return sockets


def remove_redirection(netns: NetNS) -> None:
    """Remove the redirection of DNS queries in a netns; queries then find no listener."""
    with Nft(netns) as nft:
        nft.apply([add_table(TABLE), del_table(TABLE)])


def redirect_queries(netns: NetNS, sockets: DnsSockets, *, first: bool = False) -> None:
    """Redirect the queries of a netns to these sockets, and to no others."""
    ports: dict[Literal["udp", "tcp"], int] = {
        "udp": sockets.udp.getsockname()[1],
        "tcp": sockets.tcp.getsockname()[1],
    }
    resolver = ip_network(RESOLVER)
    # The kernel frees an old table only after a grace period, which the caller would wait for.
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
