"""Queries of rtnetlink(7): links, addresses, routes, neighbours, route lookups.

Each query returns small named tuples. `linux.rtnetlink` has the requests that change the objects.

pyroute2 is not used because its dumps take ten times as long. The leak guard dumps three namespaces
around every test, and `probe.quiescence` dumps all namespaces around every matrix.
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
    u32,
)
from linux.netns import NetNS
from linux.rtnetlink import Address, Interface, Network, mac_text

Links = Mapping[NetNS, Sequence["Link"]]
"""The links of each namespace."""


_IFLA_CARRIER, _IFLA_LINK_NETNSID, _IFLA_EXT_MASK = 33, 37, 29
_LEAN: Final = u32(_IFLA_EXT_MASK, 8)
"""RTEXT_FILTER_SKIP_STATS: statistics take longer than all other attributes together."""
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_RTM_GETNSID: Final = 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NO_NSID: Final = 0xFFFFFFFF
_OPERSTATE_UNKNOWN: Final = 0
_USER_HZ: Final = 100
_LOCAL: Final = 2
"""RTN_LOCAL (linux/rtnetlink.h)."""
_RTPROT_RA: Final = 9
"""Protocol of routes from router advertisements (linux/rtnetlink.h)."""
_RTM_GETNEIGHTBL: Final = 66
_NDTA_CONFIG, _NDTA_STATS = 5, 7
_PROXY_QLEN: Final = 28
"""Offset of `ndtc_proxy_qlen` in `struct ndt_config`."""
_TABLE_FULLS: Final = 80
"""Offset of `ndts_table_fulls` in `struct ndt_stats` (linux/neighbour.h)."""


_OF_A_LINK: Final = frozenset(
    {
        *(rtnetlink.IFLA_LINKINFO, rtnetlink.IFLA_OPERSTATE, rtnetlink.IFLA_MASTER),
        *(rtnetlink.IFLA_LINK, rtnetlink.IFLA_IFNAME, rtnetlink.IFLA_ADDRESS, rtnetlink.IFLA_MTU),
        *(_IFLA_CARRIER, _IFLA_LINK_NETNSID),
    }
)


class Link(NamedTuple):
    """One interface.

    `master` is the index of the bridge that the interface is a port of. `peer` is the index of a
    veth's other end or of a macvlan's parent. If the peer is in another namespace, `peer_nsid` is
    the number by which the link's namespace knows that namespace. `port_state` is the state of a
    bridge port (`BR_STATE_…`). The kernel sets `carrier` at once, but `running` only in a work
    queue. Until then the state of a new veth end is unknown, and for an unknown state the kernel
    reports IFF_RUNNING. `resolves` is False for `lo` and tunnels, which have no neighbours.
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
    """An address of an interface; `tentative` is True during duplicate address detection."""

    ifindex: int
    address: Interface
    tentative: bool
    failed: bool


class Route(NamedTuple):
    """A route; `destination` is `None` for a default route."""

    destination: Network | None
    via: Address | None
    oif: int | None
    family: int


class Neighbour(NamedTuple):
    """A neighbour entry; `state` is a set of NUD_… bits."""

    ifindex: int
    address: Address
    mac: str | None
    state: int


def links(netlink: Netlink) -> list[Link]:
    """Return every interface of the socket's namespace, `lo` included."""
    body = rtnetlink.link_body() + _LEAN
    return list(map(_read_link, netlink.dump(rtnetlink.RTM_GETLINK, body, "list links")))


def link(netlink: Netlink, name: str) -> Link:
    """Return an interface by its name; `NetlinkError` (ENODEV) if there is none."""
    return links_named(netlink, [name])[0]


def links_named(netlink: Netlink, names: Sequence[str]) -> list[Link]:
    """Return several interfaces by name; `NetlinkError` (ENODEV) names the first missing one.

    A query by name makes the kernel update the link's carrier first (`linux.readiness`).
    """
    return [_read_link(answer) for answer in netlink.get(list(map(_link_request, names)))]


def _link_request(name: str) -> Request:
    body = rtnetlink.link_body(name=name) + _LEAN
    return Request(rtnetlink.RTM_GETLINK, 0, body, f"look up link {name}")


def ageing(netlink: Netlink, name: str) -> float:
    """Return the seconds for which a bridge keeps a learned MAC address."""
    (answer,) = netlink.get([_link_request(name)])
    fields = dict(attributes(answer, rtnetlink.LINK.size, (rtnetlink.IFLA_LINKINFO,)))
    info = dict(attributes(fields[rtnetlink.IFLA_LINKINFO]))
    options = dict(attributes(info[rtnetlink.IFLA_INFO_DATA]))
    return number(options[rtnetlink.IFLA_BR_AGEING_TIME]) / _USER_HZ


def _read_link(data: bytes) -> Link:
    _, _, index, flags, _ = rtnetlink.LINK.unpack_from(data)
    found = dict(attributes(data, rtnetlink.LINK.size, _OF_A_LINK))
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
    """Return the number that the socket's namespace has for another namespace, or `None`."""
    body = bytes(4) + u32(_NETNSA_FD, other.fd)
    (answer,) = netlink.ask(Request(_RTM_GETNSID, 0, body, f"look up {other!r}"))
    found = number(dict(attributes(answer, 4))[_NETNSA_NSID])
    return None if found == _NO_NSID else found


def addresses(netlink: Netlink, *, index: int | None = None) -> list[LinkAddress]:
    """Return every address of the namespace, or only those of one link."""
    found = [
        read_address(answer)
        for family in FAMILIES
        for answer in dump_family(netlink, addresses_request(family))
    ]
    return [item for item in found if index is None or item.ifindex == index]


def addresses_request(family: int) -> Request:
    """Return the request that lists the addresses of one family, for `dump_family`."""
    body = rtnetlink.ADDR.pack(family, 0, 0, 0, 0)
    return Request(rtnetlink.RTM_GETADDR, NLM_F_DUMP, body, "list addresses")


def routes_request(family: int, kind: int = 0) -> Request:
    """Return the request that lists the routes of one family, or of one kind, for `dump_family`."""
    body = rtnetlink.ROUTE.pack(family, 0, 0, 0, 0, 0, 0, kind, 0)
    return Request(rtnetlink.RTM_GETROUTE, NLM_F_DUMP, body, "list routes")


def dump_family(netlink: Netlink, request: Request) -> list[bytes]:
    """Return the replies to a dump of one family.

    For a dump of all families the kernel takes the lock of all links (RTNL), which the removal of a
    bridge holds for a long time. For a dump of IPv4 or IPv6 alone, Linux 6.10 does not take this
    lock. A kernel without IPv6 replies to a dump of IPv6 with all families, so the function filters
    other families out.
    """
    return [answer for answer in netlink.ask(request) if answer[0] == request.body[0]]


def read_address(message: bytes) -> LinkAddress:
    """Decode an address from the body of a reply or a notification."""
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
    """Return the IPv6 addresses that can receive packets, from the routes of kind `local`.

    A new address gets its route some time after it was added (`linux.readiness`).
    """
    answers = dump_family(netlink, routes_request(socket.AF_INET6, _LOCAL))
    found = (attributes(answer, rtnetlink.ROUTE.size, (rtnetlink.RTA_DST,)) for answer in answers)
    return {IPv6Address(packed) for fields in found for _, packed in fields}


def routes(
    netlink: Netlink, *, table: int = rtnetlink.MAIN_TABLE, every_kind: bool = False
) -> list[Route]:
    """Return the IPv4 and IPv6 routes of one table.

    The multicast and link-local routes that IPv6 has on every link are left out. By default the
    result has only unicast routes; with `every_kind` it also has others, such as blackhole and
    prohibit routes.
    """
    found = []
    for family in FAMILIES:
        for answer in dump_family(netlink, routes_request(family)):
            _, length, _, _, short, _, _, kind, _ = rtnetlink.ROUTE.unpack_from(answer)
            fields = dict(attributes(answer, rtnetlink.ROUTE.size))
            in_table = number(fields.get(rtnetlink.RTA_TABLE, bytes([short])))
            if in_table != table or not (every_kind or kind == 1):
                continue
            packed = fields.get(rtnetlink.RTA_DST)
            destination = _interface(packed, length).network if packed else None
            if destination is not None and _automatic(destination):
                continue
            via, oif = fields.get(rtnetlink.RTA_GATEWAY), fields.get(rtnetlink.RTA_OIF)
            version = 4 if family == socket.AF_INET else 6
            gateway = ip_address(via) if via else None
            found.append(Route(destination, gateway, number(oif) if oif else None, version))
    return found


def links_with_ra_routes(netlink: Netlink) -> list[str]:
    """Return the names of the links with a route from a router advertisement (RFC 4861)."""
    indexes = set[int]()
    for answer in dump_family(netlink, routes_request(socket.AF_INET6)):
        if rtnetlink.ROUTE.unpack_from(answer)[5] == _RTPROT_RA:
            oifs = attributes(answer, rtnetlink.ROUTE.size, (rtnetlink.RTA_OIF,))
            indexes.update(number(oif) for _, oif in oifs)
    return [link.name for link in links(netlink) if link.ifindex in indexes] if indexes else []


def _automatic(destination: Network) -> bool:
    return destination.version == 6 and (destination.is_link_local or destination.is_multicast)


def neighbours(netlink: Netlink, *, state: int = 0) -> Iterator[Neighbour]:
    """Yield every IPv4 and IPv6 neighbour entry of the namespace, or only those with `state`."""
    body = rtnetlink.NEIGH.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in netlink.dump(rtnetlink.RTM_GETNEIGH, body, "list neighbours"):
        family, index, entry_state, _, _ = rtnetlink.NEIGH.unpack_from(answer)
        if family not in FAMILIES or (state and not entry_state & state):
            continue
        fields = dict(attributes(answer, rtnetlink.NEIGH.size))
        mac = fields.get(rtnetlink.NDA_LLADDR)
        address = ip_address(fields[rtnetlink.NDA_DST])
        yield Neighbour(index, address, mac_text(mac) if mac else None, entry_state)


def proxied_addresses(netlink: Netlink) -> set[Address]:
    """Return the addresses for which the namespace replies to ARP or NDP as a proxy."""
    body = rtnetlink.NEIGH.pack(socket.AF_UNSPEC, 0, 0, rtnetlink.NTF_PROXY, 0)
    answers = netlink.dump(rtnetlink.RTM_GETNEIGH, body, "list proxied neighbours")
    found = (attributes(answer, rtnetlink.NEIGH.size, (rtnetlink.NDA_DST,)) for answer in answers)
    return {ip_address(packed) for fields in found for _, packed in fields}


def _interface(packed: bytes, prefix: int) -> Interface:
    if len(packed) == 4:
        return IPv4Interface((packed, prefix))
    return IPv6Interface((packed, prefix))


def _neighbour_tables(netlink: Netlink) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yield the family and the attributes of each neighbour table of the kernel.

    The query is RTM_GETNEIGHTBL (rtnetlink(7)). All namespaces share the tables, their limit
    `gc_thresh3` and their counts.
    """
    for answer in netlink.dump(_RTM_GETNEIGHTBL, bytes(4), "list neighbour tables"):
        yield answer[0], dict(attributes(answer, 4))


def neighbour_overflows(netlink: Netlink) -> int:
    """Return how often the machine's neighbour tables were full, for IPv4 and IPv6 together."""
    found = (fields.get(_NDTA_STATS, b"") for _, fields in _neighbour_tables(netlink))
    return sum(number(stats[_TABLE_FULLS : _TABLE_FULLS + 8]) for stats in found)


def proxied_requests(netlink: Netlink) -> set[int]:
    """Return the IP versions with queued neighbour requests to which a proxy will reply.

    Each version has one queue for all namespaces.
    """
    return {
        4 if family == socket.AF_INET else 6
        for family, fields in _neighbour_tables(netlink)
        if number(fields.get(_NDTA_CONFIG, b"")[_PROXY_QLEN : _PROXY_QLEN + 4])
    }


_RTA_SRC, _RTA_IIF = 2, 3
REFUSALS: Final = {
    errno.EXDEV: "reverse path",
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "no route",
    errno.EINVAL: "blackhole",
    errno.EACCES: "prohibited",
}
"""Value of `RouteLookup.refused` for each error of a lookup."""


class RouteLookup(NamedTuple):
    """Result of a route lookup for a packet.

    If `local` is set, the kernel delivers the packet in this netns. Otherwise the packet leaves
    through the link with index `oif`, to the neighbour `via` or directly to its destination.
    `refused` is the reason why there is no route; then the other fields have no meaning.
    """

    refused: str = ""
    local: bool = False
    oif: int = 0
    via: Address | None = None


def route_to(
    netlink: Netlink, to: Address, *, source: Address | None = None, iif: int | None = None
) -> RouteLookup:
    """Look up the route of a packet that the namespace sends, or that arrives at link `iif`.

    Raises `NetlinkError` if the query itself is invalid, for example if it names an unknown link.
    """
    family = rtnetlink.address_family(to.version)
    bits = to.max_prefixlen
    body = rtnetlink.ROUTE.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body += attr(rtnetlink.RTA_DST, to.packed)
    if source is not None:
        body += attr(_RTA_SRC, source.packed)
    if iif is not None:
        body += u32(_RTA_IIF, iif)
    request = Request(rtnetlink.RTM_GETROUTE, 0, body, f"look up the route to {to}")
    try:
        (answer,) = netlink.ask(request)
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
"""RTNLGRP_LINK (rtnetlink(7)): changes of links, sent before the acknowledgement."""


class LinkWatch:
    """Cache of a namespace's links, updated by the kernel's notifications.

    Close the watch, or use it as a context manager. An open watch keeps the namespace alive. A
    forked child must not use the watch.
    """

    def __init__(self, netns: NetNS) -> None:
        self._found: list[Link] | None = None
        with contextlib.ExitStack() as stack:
            self._queries = stack.enter_context(Netlink(netns))
            # A second socket, because notifications in the middle of a reply would be lost.
            self._events = stack.enter_context(Netlink(netns))
            self._events.join(_LINKS)
            self._resources = stack.pop_all()

    def links(self) -> list[Link]:
        """Return the current links, the same as the function `links`."""
        if self._changed() or self._found is None:
            self._found = None  # in case the dump fails
            self._found = links(self._queries)
        return self._found

    def _changed(self) -> bool:
        try:
            return bool(self._events.notifications())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._events.notifications()  # discard the rest
            return True

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when a notification arrives."""
        return self._events.fileno()

    def close(self) -> None:
        """Close the sockets."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
