"""Requests of rtnetlink(7) that change links, addresses, routes and neighbours.

Each function returns a `Request` for `Netlink.send`. The caller may choose the interface index of a
new link. Then one batch can have all requests about that link. `linux.rtnetlink_dump` reads the
kernel's state.

pyroute2 is not used because it waits for the reply to each request. Here a few batches create the
network of a container or a world; with pyroute2 a world takes four times as long.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Final, Literal, TypedDict, Unpack

from linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attr,
    nest,
    text,
    u8,
    u32,
)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_GETRULE = 32, 34
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

LO: Final = 1
"""Index of `lo` in every network namespace."""
IFF_UP: Final = 1
IFF_RUNNING: Final = 0x40
IFF_LOOPBACK, IFF_NOARP = 0x8, 0x80
_NEW: Final = NLM_F_CREATE | NLM_F_EXCL

# attributes of a link (if_link.h)
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 3, 4, 5
IFLA_MASTER, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_NET_NS_FD = 10, 16, 18, 28
IFLA_AF_SPEC: Final = 26
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER: Final = 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_AGEING_TIME, IFLA_BR_STP_STATE = 1, 4, 5
IFLA_BRPORT_STATE, IFLA_BRPORT_MODE = 1, 4
IFLA_BRPORT_ISOLATED: Final = 33
BR_STATE_FORWARDING: Final = 3
IFLA_PROTINFO: Final = 12
IFLA_INFO_SLAVE_DATA: Final = 5
IFLA_MACVLAN_MODE: Final = 1

# attributes of an address, a route, a neighbour
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD: Final = 0x02
IFA_F_DADFAILED: Final = 0x08
IFA_F_TENTATIVE: Final = 0x40
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
NDA_DST, NDA_LLADDR, NDA_VLAN, NDA_MASTER = 1, 2, 5, 9
NUD_INCOMPLETE, NUD_REACHABLE, NUD_STALE, NUD_FAILED = 1, 2, 4, 0x20
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_MASTER, NTF_PROXY = 4, 8

LINK: Final = struct.Struct("=BxHiII")
ADDR: Final = struct.Struct("=BBBBI")
ROUTE: Final = struct.Struct("=BBBBBBBBI")
NEIGH: Final = struct.Struct("=BxxxiHBB")
RULE: Final = struct.Struct("=BBBBBxxBI")
"""`struct fib_rule_hdr`: family, prefix lengths, TOS, table, action, flags."""
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE, _TO_TABLE = 3, 6, 15, 1
_UNICAST, _BLACKHOLE = 1, 6
_IFLA_GROUP: Final = 27
MAIN_TABLE: Final = 254
RTPROT_STATIC: Final = 4
"""Protocol of routes that an administrator or a program adds (ip-route(8))."""


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of a MAC such as `02:42:…`; `ValueError` for any other text."""
    octets = bytes.fromhex(mac.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(f"{mac!r} is not a MAC address")
    return octets


def mac_text(octets: bytes) -> str:
    """Return a MAC address in lower case with colons."""
    return octets.hex(":")


# --- links -----------------------------------------------------------------


class LinkOptions(TypedDict, total=False):
    """Attributes of a link to create or change.

    `netns` is a descriptor of the namespace to which the link moves. `master` is the index of the
    bridge of which the link becomes a port; 0 removes the link from its bridge.
    """

    index: int
    name: str
    up: bool
    mtu: int | None
    mac: str | None
    master: int | None
    netns: int | None
    group: int


def link_body(**options: Unpack[LinkOptions]) -> bytes:
    """Encode a link message: the interface and its attributes."""
    flags = IFF_UP if options.get("up") else 0
    change = IFF_UP if "up" in options else 0
    body = LINK.pack(socket.AF_UNSPEC, 0, options.get("index", 0), flags, change)
    if "name" in options:
        body += text(IFLA_IFNAME, options["name"])
    if mac := options.get("mac"):
        body += attr(IFLA_ADDRESS, mac_bytes(mac))
    numbers = {
        IFLA_MTU: options.get("mtu"),
        IFLA_MASTER: options.get("master"),
        IFLA_NET_NS_FD: options.get("netns"),
        _IFLA_GROUP: options.get("group"),
    }
    return body + b"".join(u32(key, value) for key, value in numbers.items() if value is not None)


def _new_link(
    what: str, kind: str, data: bytes, options: LinkOptions, more: bytes = b""
) -> Request:
    info = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nest(IFLA_INFO_DATA, data))
    body = link_body(**options) + more + info
    return Request(RTM_NEWLINK, _NEW, body, what)


def add_bridge(name: str, /, **options: Unpack[LinkOptions]) -> Request:
    """Create a bridge without spanning tree, whose ports forward at once; by default it is up."""
    data = u32(IFLA_BR_STP_STATE, 0) + u32(IFLA_BR_FORWARD_DELAY, 0)
    return _new_link(f"add bridge {name}", "bridge", data, {"up": True, **options, "name": name})


def add_veth(
    name: str,
    peer: str,
    /,
    *,
    peer_netns: int | None = None,
    peer_index: int = 0,
    peer_mac: str | None = None,
    **options: Unpack[LinkOptions],
) -> Request:
    """Create a veth pair in one message: both ends get a name and a namespace; the near end is up.

    The message cannot bring the peer up, because the kernel would open the peer before the two ends
    are connected (ENOTCONN). That takes another request in the peer's namespace. The same holds for
    the peer's master.
    """
    mtu = options.get("mtu")
    far = link_body(index=peer_index, name=peer, mtu=mtu, mac=peer_mac, netns=peer_netns)
    data = attr(VETH_INFO_PEER, far)
    what = f"add veth {name} with peer {peer}"
    return _new_link(what, "veth", data, {"up": True, **options, "name": name})


def add_link(
    kind: str,
    name: str,
    /,
    *,
    parent: int | None = None,
    data: bytes = b"",
    **options: Unpack[LinkOptions],
) -> Request:
    """Create a link of any kind (`dummy`, `macvlan`, …) with the kind's attributes `data`."""
    more = u32(IFLA_LINK, parent) if parent is not None else b""
    return _new_link(f"add {kind} link {name}", kind, data, {**options, "name": name}, more)


def set_link(index: int, /, **options: Unpack[LinkOptions]) -> Request:
    """Change the link with this `index`; its name becomes `name`.

    If `index` is 0, the link is found by its name.
    """
    options["index"] = index
    what = f"change link {options.get('name') or index}"
    return Request(RTM_NEWLINK, 0, link_body(**options), what)


def isolate_port(index: int, *, isolated: bool = True) -> Request:
    """Isolate a bridge port from every other isolated port, also for frames without IP."""
    body = LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    body += nest(IFLA_PROTINFO, u8(IFLA_BRPORT_ISOLATED, isolated))
    return Request(RTM_SETLINK, 0, body, f"isolate bridge port {index}")


def no_link_local(name: str) -> Request:
    """Keep the kernel from adding an IPv6 link-local address to a link, such as a bridge port."""
    mode = u8(8, 1)  # IFLA_INET6_ADDR_GEN_MODE: none
    body = link_body(name=name) + nest(IFLA_AF_SPEC, nest(socket.AF_INET6, mode))
    return Request(RTM_SETLINK, 0, body, f"keep {name} without a link-local address")


def hairpin_port(index: int, *, on: bool = True) -> Request:
    """Let a bridge port send frames back through the port on which they arrived."""
    body = LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    body += nest(IFLA_PROTINFO, u8(IFLA_BRPORT_MODE, on))
    return Request(RTM_SETLINK, 0, body, f"hairpin on bridge port {index}")


def del_link(name: str) -> Request:
    """Remove a link by name; for a veth end the kernel also removes its peer."""
    return Request(RTM_DELLINK, 0, link_body(name=name), f"remove link {name}")


def del_group(group: int) -> Request:
    """Remove every link of a link group in one request."""
    body = link_body(group=group)
    return Request(RTM_DELLINK, 0, body, f"remove the links of group {group}")


# --- addresses, routes, neighbours ------------------------------------------


def address_family(version: int) -> int:
    """Return the AF_… constant of an IP version."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _address_body(index: int, address: Interface, flags: int = 0) -> bytes:
    body = ADDR.pack(address_family(address.version), address.network.prefixlen, flags, 0, index)
    packed = address.ip.packed
    return body + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)


def add_address(index: int, address: Interface, *, nodad: bool = True) -> Request:
    """Add an address; by default IPv6 skips duplicate address detection and is usable at once."""
    body = _address_body(index, address, IFA_F_NODAD if nodad and address.version == 6 else 0)
    if address.version == 4 and address.network.prefixlen < 31:
        body += attr(4, address.network.broadcast_address.packed)  # IFA_BROADCAST
    return Request(RTM_NEWADDR, _NEW, body, f"add address {address} to link {index}")


def del_address(index: int, address: Interface) -> Request:
    """Remove an address."""
    body = _address_body(index, address)
    return Request(RTM_DELADDR, 0, body, f"remove address {address} from {index}")


def _route_body(
    destination: Network | None,
    *,
    via: Address | None = None,
    oif: int | None = None,
    table: int = MAIN_TABLE,
    source: Address | None = None,
    kind: int = 0,
) -> bytes:
    version = next(item.version for item in (destination, via, source) if item is not None)
    length = destination.prefixlen if destination is not None else 0
    # RT_SCOPE_LINK for a route without a gateway
    scope = 253 if kind == _UNICAST and via is None and version == 4 else 0
    short = table if table < 256 else 0  # gVisor supports only the short table number
    body = ROUTE.pack(address_family(version), length, 0, 0, short, RTPROT_STATIC, scope, kind, 0)
    if destination is not None and length:
        body += attr(RTA_DST, destination.network_address.packed)
    if via is not None:
        body += attr(RTA_GATEWAY, via.packed)
    if oif is not None:
        body += u32(RTA_OIF, oif)
    if source is not None:
        body += attr(RTA_PREFSRC, source.packed)
    return body if short else body + u32(RTA_TABLE, table)


def add_route(
    destination: Network | None,
    *,
    via: Address | None = None,
    oif: int | None = None,
    table: int = MAIN_TABLE,
    source: Address | None = None,
    replace: bool = False,
) -> Request:
    """Add a unicast route; `None` as `destination` means a default route of the family of `via`."""
    body = _route_body(destination, via=via, oif=oif, table=table, source=source, kind=_UNICAST)
    flags = NLM_F_CREATE | NLM_F_REPLACE if replace else _NEW
    what = f"add route {destination or 'default'} via {via or f'link {oif}'}"
    return Request(RTM_NEWROUTE, flags, body, what)


def add_blackhole(network: Network) -> Request:
    """Add a blackhole route: the kernel drops packets to `network` without an ICMP error."""
    body = _route_body(network, kind=_BLACKHOLE)
    return Request(RTM_NEWROUTE, _NEW, body, f"add blackhole {network}")


def del_route(destination: Network | None, *, via: Address) -> Request:
    """Remove a route."""
    body = _route_body(destination, via=via)
    return Request(RTM_DELROUTE, 0, body, f"remove route {destination or 'default'} via {via}")


def add_rule(family: Literal[4, 6], *, iif: str, table: int, priority: int) -> Request:
    """Add a policy rule: packets from the input interface `iif` use the routing table `table`.

    The input interface `lo` matches packets that the namespace itself sends (ip-rule(8)).
    """
    body = RULE.pack(address_family(family), 0, 0, 0, 0, _TO_TABLE, 0)
    body += text(_FRA_IIFNAME, iif) + u32(_FRA_PRIORITY, priority) + u32(_FRA_TABLE, table)
    what = f"add rule {priority}: from {iif} to table {table}"
    return Request(RTM_NEWRULE, _NEW, body, what)


def add_neighbour(index: int, address: Address, mac: str) -> Request:
    """Add a permanent neighbour entry."""
    body = NEIGH.pack(address_family(address.version), index, NUD_PERMANENT, 0, 0)
    body += attr(NDA_DST, address.packed) + attr(NDA_LLADDR, mac_bytes(mac))
    what = f"add neighbour {address} at {mac} to link {index}"
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def add_proxy(index: int, address: Address) -> Request:
    """Make a link reply to ARP or NDP for an address of another link (ip-neighbour(8), proxy)."""
    body = NEIGH.pack(address_family(address.version), index, 0, NTF_PROXY, 0) + attr(
        NDA_DST, address.packed
    )
    what = f"answer for {address} on link {index}"
    return Request(RTM_NEWNEIGH, _NEW, body, what)


def del_neighbour(index: int, address: Address) -> Request:
    """Remove a neighbour entry."""
    body = NEIGH.pack(address_family(address.version), index, 0, 0, 0) + attr(
        NDA_DST, address.packed
    )
    return Request(RTM_DELNEIGH, 0, body, f"forget neighbour {address} on link {index}")
