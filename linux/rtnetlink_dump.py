"""What the kernel tells through rtnetlink(7): links, addresses, routes, neighbours.

Each dump becomes small named tuples. `linux.rtnetlink` holds the requests that
change things.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Final, NamedTuple, Self

from linux import rtnetlink
from linux.netlink import (
    NLM_F_DUMP,
    Netlink,
    NetlinkError,
    Request,
    attr,
    attributes,
    number,
    pick,
    u32,
)
from linux.netns import NetNS
from linux.rtnetlink import Address, Interface, Network, mac_text

Links = Mapping[NetNS, Sequence["Link"]]
"""The links of each namespace."""


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
        *(
            rtnetlink.IFLA_LINKINFO,
            rtnetlink.IFLA_OPERSTATE,
            rtnetlink.IFLA_MASTER,
            rtnetlink.IFLA_LINK,
        ),
        *(rtnetlink.IFLA_IFNAME, rtnetlink.IFLA_ADDRESS, rtnetlink.IFLA_MTU, _IFLA_CARRIER),
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
    body = rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _LEAN
    return [
        _read_link(answer)
        for answer in netlink.ask(Request(rtnetlink.RTM_GETLINK, NLM_F_DUMP, body, "list links"))
    ]


def link(netlink: Netlink, name: str) -> Link:
    """One interface by name; `NetlinkError` (ENODEV) when there is none."""
    return links_named(netlink, [name])[0]


def links_named(netlink: Netlink, names: Sequence[str]) -> list[Link]:
    """Several interfaces by name; `NetlinkError` (ENODEV) for the first that is not there.

    Asked for by name, a link's carrier is what it is by now (`linux.readiness`).
    """
    requests = [
        Request(
            rtnetlink.RTM_GETLINK, 0, rtnetlink.link_body(name=name) + _LEAN, f"look up link {name}"
        )
        for name in names
    ]
    return [_read_link(answer) for answer in netlink.get(requests)] if requests else []


def ageing(netlink: Netlink, name: str) -> float:
    """For how many seconds a bridge remembers behind which port a MAC is."""
    request = Request(
        rtnetlink.RTM_GETLINK, 0, rtnetlink.link_body(name=name), f"look up bridge {name}"
    )
    (answer,) = netlink.get([request])
    info = dict(attributes(pick(answer, rtnetlink.LINK.size, _OF_A_LINK)[rtnetlink.IFLA_LINKINFO]))
    options = dict(attributes(info[rtnetlink.IFLA_INFO_DATA]))
    return number(options[rtnetlink.IFLA_BR_AGEING_TIME]) / _USER_HZ


def _read_link(data: bytes) -> Link:
    _, _, index, flags, _ = rtnetlink.LINK.unpack_from(data)
    found = pick(data, rtnetlink.LINK.size, _OF_A_LINK)
    info = dict(attributes(found.get(rtnetlink.IFLA_LINKINFO, b"")))
    port = dict(attributes(info.get(rtnetlink.IFLA_INFO_SLAVE_DATA, b"")))
    state = port.get(rtnetlink.IFLA_BRPORT_STATE)
    kind = info.get(rtnetlink.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    known = kind != "veth" or number(found[rtnetlink.IFLA_OPERSTATE]) != _OPERSTATE_UNKNOWN
    master, peer = found.get(rtnetlink.IFLA_MASTER), found.get(rtnetlink.IFLA_LINK)
    return Link(
        ifindex=index,
        name=found[rtnetlink.IFLA_IFNAME].rstrip(b"\0").decode(),
        kind=kind,
        up=bool(flags & rtnetlink.IFF_UP),
        running=known and bool(flags & rtnetlink.IFF_RUNNING),
        mac=mac_text(found.get(rtnetlink.IFLA_ADDRESS, b"")),
        mtu=number(found.get(rtnetlink.IFLA_MTU, b"")),
        master=number(master) if master else None,
        peer=number(peer) if peer else None,
        port_state=state[0] if state else None,
        peer_nsid=number(elsewhere) if (elsewhere := found.get(_IFLA_LINK_NETNSID)) else None,
        resolves=not flags & (rtnetlink.IFF_LOOPBACK | rtnetlink.IFF_NOARP),
        carrier=found.get(_IFLA_CARRIER, b"\0") != b"\0",
        isolated=port.get(rtnetlink.IFLA_BRPORT_ISOLATED, b"\0") != b"\0",
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
        for answer in dump_family(netlink, addresses_request(family))
    ]
    return [item for item in found if index is None or item.ifindex == index]


def addresses_request(family: int) -> Request:
    """The question for the addresses of one family, for `dump_family`."""
    body = rtnetlink.ADDR.pack(family, 0, 0, 0, 0)
    return Request(rtnetlink.RTM_GETADDR, NLM_F_DUMP, body, "list addresses")


def routes_request(family: int, kind: int = 0) -> Request:
    """The question for the routes of one family, for `dump_family`: of all tables, or of one kind."""
    body = rtnetlink.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, kind, 0)
    return Request(rtnetlink.RTM_GETROUTE, NLM_F_DUMP, body, "list routes")


def dump_family(netlink: Netlink, request: Request) -> list[bytes]:
    """The answers to a question about one family.

    About all families at once the kernel answers with the lock for all links held, for which one
    waits while somebody removes a bridge; about IPv4 or IPv6 alone without (Linux 6.10). A kernel
    without IPv6 takes a question about that for one about all, and says again what IPv4 has.
    """
    return [answer for answer in netlink.ask(request) if answer[0] == request.body[0]]


def read_address(message: bytes) -> LinkAddress:
    """An address from the body of a message, an answer or a notice."""
    _, prefix, flags, _, owner = rtnetlink.ADDR.unpack_from(message)
    fields = dict(attributes(message, rtnetlink.ADDR.size))
    packed = fields.get(rtnetlink.IFA_LOCAL) or fields[rtnetlink.IFA_ADDRESS]
    return LinkAddress(
        owner,
        _interface(packed, prefix),
        bool(flags & rtnetlink.IFA_F_TENTATIVE),
        bool(flags & rtnetlink.IFA_F_DADFAILED),
    )


def local_addresses(netlink: Netlink) -> set[IPv6Address]:
    """The IPv6 addresses for which the namespace takes packets in: its routes of kind `local`.

    An address that was added is among them only a little later (`linux.readiness`).
    """
    answers = dump_family(netlink, routes_request(socket.AF_INET6, _LOCAL))
    found = (pick(answer, rtnetlink.ROUTE.size, (rtnetlink.RTA_DST,)) for answer in answers)
    return {IPv6Address(fields[rtnetlink.RTA_DST]) for fields in found}


def routes(
    netlink: Netlink, *, table: int = rtnetlink.MAIN_TABLE, every_kind: bool = False
) -> list[Route]:
    """The routes of one table, both families; not those that IPv6 has on every link by itself.

    Which are of multicast and link-local. Unicast routes only, or of every kind: blackholes and
    prohibitions too.
    """
    found = []
    for family in FAMILIES:
        for answer in dump_family(netlink, routes_request(family)):
            _, length, _, _, short, _, _, kind, _ = rtnetlink.ROUTE.unpack_from(answer)
            fields = dict(attributes(answer, rtnetlink.ROUTE.size))
            in_table = (
                number(fields[rtnetlink.RTA_TABLE]) if rtnetlink.RTA_TABLE in fields else short
            )
            if in_table != table or not (every_kind or kind == 1):
                continue
            packed = fields.get(rtnetlink.RTA_DST)
            destination = _interface(packed, length).network if packed else None
            if destination is not None and _of_every_link(destination):
                continue
            via, oif = fields.get(rtnetlink.RTA_GATEWAY), fields.get(rtnetlink.RTA_OIF)
            found.append(
                Route(
                    destination,
                    ip_address(via) if via else None,
                    number(oif) if oif else None,
                    4 if family == socket.AF_INET else 6,
                )
            )
    return found


def links_with_ra_routes(netlink: Netlink) -> list[str]:
    """The links by which a route leads that a router has told of (RFC 4861)."""
    told = set()
    for answer in dump_family(netlink, routes_request(socket.AF_INET6)):
        oif = pick(answer, rtnetlink.ROUTE.size, (rtnetlink.RTA_OIF,)).get(rtnetlink.RTA_OIF)
        if oif and rtnetlink.ROUTE.unpack_from(answer)[5] == _RTPROT_RA:
            told.add(number(oif))
    return [link.name for link in links(netlink) if link.ifindex in told] if told else []


def _of_every_link(destination: Network) -> bool:
    return destination.version == 6 and (destination.is_link_local or destination.is_multicast)


def neighbours(netlink: Netlink, *, state: int = 0) -> Iterator[Neighbour]:
    """Every IPv4 and IPv6 neighbour entry of the namespace, or those with such a `state` alone."""
    body = rtnetlink.NEIGH.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in netlink.ask(Request(rtnetlink.RTM_GETNEIGH, NLM_F_DUMP, body, "list neighbours")):
        family, index, its_state, _, _ = rtnetlink.NEIGH.unpack_from(answer)
        if family not in (socket.AF_INET, socket.AF_INET6) or (state and not its_state & state):
            continue
        fields = dict(attributes(answer, rtnetlink.NEIGH.size))
        mac = fields.get(rtnetlink.NDA_LLADDR)
        yield Neighbour(
            index, ip_address(fields[rtnetlink.NDA_DST]), mac_text(mac) if mac else None, its_state
        )


def proxied_addresses(netlink: Netlink) -> set[Address]:
    """The addresses that the namespace answers its neighbours for, one by one."""
    body = rtnetlink.NEIGH.pack(socket.AF_UNSPEC, 0, 0, rtnetlink.NTF_PROXY, 0)
    asked = netlink.ask(
        Request(rtnetlink.RTM_GETNEIGH, NLM_F_DUMP, body, "list proxied neighbours")
    )
    found = (
        dict(attributes(answer, rtnetlink.NEIGH.size)).get(rtnetlink.NDA_DST) for answer in asked
    )
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


_RTA_SRC, _RTA_IIF = 2, 3
REFUSALS: Final = {
    errno.EXDEV: "reverse path",
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "no route",
    errno.EINVAL: "blackhole",
    errno.EACCES: "prohibited",
}
"""What the kernel's refusals of a lookup mean, as `RouteLookup.refused` has them."""


class RouteLookup(NamedTuple):
    """Where a packet would go: `local`, or out by link number `oif`, to neighbour `via`.

    `refused` tells why it would go nowhere; then the rest means nothing.
    """

    refused: str = ""
    local: bool = False
    oif: int = 0
    via: Address | None = None


def route_to(
    netlink: Netlink, to: Address, *, source: Address | None = None, iif: int | None = None
) -> RouteLookup:
    """The way of a packet to an address: of the namespace's own, or one that came in by `iif`.

    Raises `NetlinkError` when the question itself is refused: no such link.
    """
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    bits = to.max_prefixlen
    body = rtnetlink.ROUTE.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body += attr(rtnetlink.RTA_DST, to.packed)
    if source is not None:
        body += attr(_RTA_SRC, source.packed)
    if iif is not None:
        body += u32(_RTA_IIF, iif)
    try:
        (answer,) = netlink.ask(
            Request(rtnetlink.RTM_GETROUTE, 0, body, f"look up the way to {to}")
        )
    except NetlinkError as error:
        if error.errno in REFUSALS:
            return RouteLookup(refused=REFUSALS[error.errno])
        raise
    fields = dict(attributes(answer, rtnetlink.ROUTE.size))
    kind = rtnetlink.ROUTE.unpack_from(answer)[7]
    if kind in _KINDS:
        return RouteLookup(refused=_KINDS[kind])
    via = fields.get(rtnetlink.RTA_GATEWAY)
    return RouteLookup(
        local=kind == _LOCAL,
        oif=number(fields.get(rtnetlink.RTA_OIF, b"")),
        via=ip_address(via) if via else None,
    )


_KINDS: Final = {6: "blackhole", 7: "no route", 8: "prohibited"}
"""RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT."""


_LINKS: Final = 1
"""RTNLGRP_LINK (rtnetlink(7)): who came, went or changed. It is told before the acknowledgement."""


class LinkWatch:
    """Hears of the links of one namespace. Use it as a context manager, or `close` it.

    It keeps the namespace alive, and is of no use to who was forked meanwhile.
    """

    def __init__(self, netns: NetNS) -> None:
        self._found: list[Link] | None = None
        with contextlib.ExitStack() as stack:
            self._asked = stack.enter_context(Netlink(netns))
            # One of its own: what is told amid an answer would be lost there.
            self._told = stack.enter_context(Netlink(netns))
            self._told.join(_LINKS)
            self._resources = stack.pop_all()

    def links(self) -> list[Link]:
        """As `netstate.links`, as things are now."""
        if self._changed() or self._found is None:
            self._found = None  # should the question fail
            self._found = links(self._asked)
        return self._found

    def _changed(self) -> bool:
        try:
            return bool(self._told.told())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._told.told()  # the rest, so that the next time is about what is new
            return True

    def fileno(self) -> int:
        """The descriptor that can be read when something was told."""
        return self._told.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
