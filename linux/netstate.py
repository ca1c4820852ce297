"""What the kernel tells through rtnetlink(7): links, addresses, routes, neighbours.

Each dump becomes small named tuples. `linux.rtnl` holds the requests that
change things.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Final, NamedTuple

from linux import rtnl
from linux.netlink import NLM_F_DUMP, Netlink, Request, attributes, chosen, number, u32
from linux.netns import NetNS
from linux.rtnl import Address, Interface, Network, mac_text

_IFLA_CARRIER, _IFLA_LINK_NETNSID, _IFLA_EXT_MASK = 33, 37, 29
_LEAN: Final = u32(_IFLA_EXT_MASK, 8)
"""RTEXT_FILTER_SKIP_STATS: counting takes longer than all the rest."""
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_RTM_GETNSID: Final = 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NO_NSID: Final = 0xFFFFFFFF
_OPERSTATE_UNKNOWN: Final = 0
_USER_HZ: Final = 100
_LOCAL: Final = 2
"""RTN_LOCAL (linux/rtnetlink.h)."""
_RTPROT_RA: Final = 9
"""Of a route that a router has told of, by its advertisement (linux/rtnetlink.h)."""
_RTM_GETNEIGHTBL: Final = 66
_NDTA_CONFIG, _NDTA_STATS = 5, 7
_PROXY_QLEN: Final = 28
"""Offset of `ndtc_proxy_qlen` in `struct ndt_config`."""
_TABLE_FULLS: Final = 80
"""Offset of `ndts_table_fulls` in `struct ndt_stats` (linux/neighbour.h)."""


_OF_A_LINK: Final = frozenset(
    {
        *(rtnl.IFLA_LINKINFO, rtnl.IFLA_OPERSTATE, rtnl.IFLA_MASTER, rtnl.IFLA_LINK),
        *(rtnl.IFLA_IFNAME, rtnl.IFLA_ADDRESS, rtnl.IFLA_MTU, _IFLA_CARRIER),
        _IFLA_LINK_NETNSID,
    }
)


class Link(NamedTuple):
    """One interface.

    `master` is the index of the bridge it is a port of, `peer` the index of a
    veth's other end or of a macvlan's parent, in the namespace that this one numbers
    `peer_nsid` when it is another; `port_state` a bridge port's (`BR_STATE_…`). `carrier` turns
    true at once, `running` only when the kernel's work queue has dealt with it. A
    new veth's state is not known until then, which IFF_RUNNING takes for a good sign.
    `resolves` tells whether neighbours are looked for on it: not on `lo` or a tunnel.
    """

    ifindex: int
    name: str
    kind: str
    up: bool
    running: bool
    mac: str
    mtu: int
    master: int | None
    peer: int | None
    isolated: bool = False
    port_state: int | None = None
    carrier: bool = False
    resolves: bool = True
    peer_nsid: int | None = None


class LinkAddress(NamedTuple):
    """One address of an interface; `tentative` while its uniqueness is being checked."""

    ifindex: int
    address: Interface
    tentative: bool
    failed: bool


class Route(NamedTuple):
    """One route of the main table. `destination` is `None` for the default route."""

    destination: Network | None
    via: Address | None
    oif: int | None
    family: int


class Neighbour(NamedTuple):
    """One neighbour entry; `state` as NUD_… bits."""

    ifindex: int
    address: Address
    mac: str | None
    state: int


def links(netlink: Netlink) -> list[Link]:
    """Every interface of the socket's namespace, `lo` included."""
    body = rtnl.LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _LEAN
    return [
        _read_link(answer)
        for answer in netlink.ask(Request(rtnl.RTM_GETLINK, NLM_F_DUMP, body, "list links"))
    ]


def link(netlink: Netlink, name: str) -> Link:
    """One interface by name; `NetlinkError` (ENODEV) when there is none."""
    return links_named(netlink, [name])[0]


def links_named(netlink: Netlink, names: Sequence[str]) -> list[Link]:
    """Several interfaces by name; `NetlinkError` (ENODEV) for the first that is not there.

    Asked for by name, a link's carrier is what it is by now (`linux.carrier`).
    """
    requests = [
        Request(rtnl.RTM_GETLINK, 0, rtnl.link_body(name=name) + _LEAN, f"look up link {name}")
        for name in names
    ]
    return [_read_link(answer) for answer in netlink.get(requests)] if requests else []


def ageing(netlink: Netlink, name: str) -> float:
    """For how many seconds a bridge remembers behind which port a MAC is."""
    request = Request(rtnl.RTM_GETLINK, 0, rtnl.link_body(name=name), f"look up bridge {name}")
    (answer,) = netlink.get([request])
    info = dict(attributes(chosen(answer, rtnl.LINK.size, _OF_A_LINK)[rtnl.IFLA_LINKINFO]))
    options = dict(attributes(info[rtnl.IFLA_INFO_DATA]))
    return number(options[rtnl.IFLA_BR_AGEING_TIME]) / _USER_HZ


def _read_link(data: bytes) -> Link:
    _, _, index, flags, _ = rtnl.LINK.unpack_from(data)
    found = chosen(data, rtnl.LINK.size, _OF_A_LINK)
    info = dict(attributes(found.get(rtnl.IFLA_LINKINFO, b"")))
    port = dict(attributes(info.get(rtnl.IFLA_INFO_SLAVE_DATA, b"")))
    state = port.get(rtnl.IFLA_BRPORT_STATE)
    kind = info.get(rtnl.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    known = kind != "veth" or number(found[rtnl.IFLA_OPERSTATE]) != _OPERSTATE_UNKNOWN
    master, peer = found.get(rtnl.IFLA_MASTER), found.get(rtnl.IFLA_LINK)
    return Link(
        ifindex=index,
        name=found[rtnl.IFLA_IFNAME].rstrip(b"\0").decode(),
        kind=kind,
        up=bool(flags & rtnl.IFF_UP),
        running=known and bool(flags & rtnl.IFF_RUNNING),
        mac=mac_text(found.get(rtnl.IFLA_ADDRESS, b"")),
        mtu=number(found.get(rtnl.IFLA_MTU, b"")),
        master=number(master) if master else None,
        peer=number(peer) if peer else None,
        port_state=state[0] if state else None,
        peer_nsid=number(elsewhere) if (elsewhere := found.get(_IFLA_LINK_NETNSID)) else None,
        resolves=not flags & (rtnl.IFF_LOOPBACK | rtnl.IFF_NOARP),
        carrier=found.get(_IFLA_CARRIER, b"\0") != b"\0",
        isolated=port.get(rtnl.IFLA_BRPORT_ISOLATED, b"\0") != b"\0",
    )


def nsid(netlink: Netlink, other: NetNS) -> int | None:
    """The number by which the socket's namespace knows another; `None` when it has none yet."""
    body = bytes(4) + u32(_NETNSA_FD, other.fd)
    (answer,) = netlink.ask(Request(_RTM_GETNSID, 0, body, f"look up {other!r}"))
    found = number(dict(attributes(answer, 4))[_NETNSA_NSID])
    return None if found == _NO_NSID else found


def addresses(netlink: Netlink, *, index: int | None = None) -> list[LinkAddress]:
    """Every address of the namespace, or of one link."""
    found = [
        read_address(answer)
        for family in FAMILIES
        for answer in of_family(netlink, list_addresses(family))
    ]
    return [item for item in found if index is None or item.ifindex == index]


def list_addresses(family: int) -> Request:
    """The question for the addresses of one family, for `of_family`."""
    body = rtnl.ADDR.pack(family, 0, 0, 0, 0)
    return Request(rtnl.RTM_GETADDR, NLM_F_DUMP, body, "list addresses")


def list_routes(family: int, kind: int = 0) -> Request:
    """The question for the routes of one family, for `of_family`: of all tables, or of one kind."""
    body = rtnl.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, kind, 0)
    return Request(rtnl.RTM_GETROUTE, NLM_F_DUMP, body, "list routes")


def of_family(netlink: Netlink, request: Request) -> list[bytes]:
    """The answers to a question about one family.

    About all families at once the kernel answers with the lock for all links held, for which one
    waits while somebody removes a bridge; about IPv4 or IPv6 alone without (Linux 6.10). A kernel
    without IPv6 takes a question about that for one about all, and says again what IPv4 has.
    """
    return [answer for answer in netlink.ask(request) if answer[0] == request.body[0]]


def read_address(message: bytes) -> LinkAddress:
    """An address from the body of a message, an answer or a notice."""
    _, prefix, flags, _, owner = rtnl.ADDR.unpack_from(message)
    fields = dict(attributes(message, rtnl.ADDR.size))
    packed = fields.get(rtnl.IFA_LOCAL) or fields[rtnl.IFA_ADDRESS]
    return LinkAddress(
        owner,
        _interface(packed, prefix),
        bool(flags & rtnl.IFA_F_TENTATIVE),
        bool(flags & rtnl.IFA_F_DADFAILED),
    )


def taken(netlink: Netlink) -> set[IPv6Address]:
    """The IPv6 addresses for which the namespace takes packets in: its routes of kind `local`.

    An address that was added is among them only a little later (`linux.carrier`).
    """
    answers = of_family(netlink, list_routes(socket.AF_INET6, _LOCAL))
    found = (chosen(answer, rtnl.ROUTE.size, (rtnl.RTA_DST,)) for answer in answers)
    return {IPv6Address(fields[rtnl.RTA_DST]) for fields in found}


def routes(
    netlink: Netlink, *, table: int = rtnl.MAIN_TABLE, every_kind: bool = False
) -> list[Route]:
    """The routes of one table, both families; not those that IPv6 has on every link by itself.

    Which are of multicast and link-local. Unicast routes only, or of every kind: blackholes and
    prohibitions too.
    """
    found = []
    for family in FAMILIES:
        for answer in of_family(netlink, list_routes(family)):
            _, length, _, _, short, _, _, kind, _ = rtnl.ROUTE.unpack_from(answer)
            fields = dict(attributes(answer, rtnl.ROUTE.size))
            in_table = number(fields[rtnl.RTA_TABLE]) if rtnl.RTA_TABLE in fields else short
            if in_table != table or not (every_kind or kind == 1):
                continue
            packed = fields.get(rtnl.RTA_DST)
            destination = _interface(packed, length).network if packed else None
            if destination is not None and _of_every_link(destination):
                continue
            via, oif = fields.get(rtnl.RTA_GATEWAY), fields.get(rtnl.RTA_OIF)
            found.append(
                Route(
                    destination,
                    ip_address(via) if via else None,
                    number(oif) if oif else None,
                    4 if family == socket.AF_INET else 6,
                )
            )
    return found


def advertised(netlink: Netlink) -> list[str]:
    """The links by which a route leads that a router has told of (RFC 4861)."""
    told = set()
    for answer in of_family(netlink, list_routes(socket.AF_INET6)):
        oif = chosen(answer, rtnl.ROUTE.size, (rtnl.RTA_OIF,)).get(rtnl.RTA_OIF)
        if oif and rtnl.ROUTE.unpack_from(answer)[5] == _RTPROT_RA:
            told.add(number(oif))
    return [link.name for link in links(netlink) if link.ifindex in told] if told else []


def _of_every_link(destination: Network) -> bool:
    return destination.version == 6 and (destination.is_link_local or destination.is_multicast)


def neighbours(netlink: Netlink, *, state: int = 0) -> Iterator[Neighbour]:
    """Every IPv4 and IPv6 neighbour entry of the namespace, or those with such a `state` alone."""
    body = rtnl.NEIGH.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in netlink.ask(Request(rtnl.RTM_GETNEIGH, NLM_F_DUMP, body, "list neighbours")):
        family, index, its_state, _, _ = rtnl.NEIGH.unpack_from(answer)
        if family not in (socket.AF_INET, socket.AF_INET6) or (state and not its_state & state):
            continue
        fields = dict(attributes(answer, rtnl.NEIGH.size))
        mac = fields.get(rtnl.NDA_LLADDR)
        yield Neighbour(
            index, ip_address(fields[rtnl.NDA_DST]), mac_text(mac) if mac else None, its_state
        )


def proxied(netlink: Netlink) -> set[Address]:
    """The addresses that the namespace answers its neighbours for, one by one."""
    body = rtnl.NEIGH.pack(socket.AF_UNSPEC, 0, 0, rtnl.NTF_PROXY, 0)
    asked = netlink.ask(Request(rtnl.RTM_GETNEIGH, NLM_F_DUMP, body, "list proxied neighbours"))
    found = (dict(attributes(answer, rtnl.NEIGH.size)).get(rtnl.NDA_DST) for answer in asked)
    return {ip_address(packed) for packed in found if packed}


def _interface(packed: bytes, prefix: int) -> Interface:
    if len(packed) == 4:
        return IPv4Interface((packed, prefix))
    return IPv6Interface((packed, prefix))


def neighbour_overflows(netlink: Netlink) -> int:
    """How often the kernel refused a neighbour entry for want of room, both families.

    The tables and their limit (`gc_thresh3`) are shared by all namespaces, and so
    is this count (RTM_GETNEIGHTBL, rtnetlink(7)).
    """
    total = 0
    request = Request(_RTM_GETNEIGHTBL, NLM_F_DUMP, bytes(4), "list neighbour tables")
    for answer in netlink.ask(request):
        fields = dict(attributes(answer, 4))
        if _NDTA_STATS in fields:
            total += number(fields[_NDTA_STATS][_TABLE_FULLS : _TABLE_FULLS + 8])
    return total


def proxied_requests(netlink: Netlink) -> set[int]:
    """IP versions in which a request for a neighbour waits that is to be answered for another.

    Each version has one queue for all namespaces (RTM_GETNEIGHTBL, rtnetlink(7)).
    """
    found = set()
    request = Request(_RTM_GETNEIGHTBL, NLM_F_DUMP, bytes(4), "list neighbour tables")
    for answer in netlink.ask(request):
        config = dict(attributes(answer, 4)).get(_NDTA_CONFIG)
        if config and number(config[_PROXY_QLEN : _PROXY_QLEN + 4]):
            found.add(4 if answer[0] == socket.AF_INET else 6)
    return found
