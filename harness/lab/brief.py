"""Links, addresses and routes, line for line as iproute2 writes them in brief (`ip -br`)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from harness.model import Family
from linux import netstate, rtnl
from linux.netlink import NLM_F_DUMP, Netlink, Request, attributes, number

_FLAGS: Final = {
    "LOOPBACK": 0x8,
    "BROADCAST": 0x2,
    "POINTOPOINT": 0x10,
    "MULTICAST": 0x1000,
    "NOARP": 0x80,
    "ALLMULTI": 0x200,
    "PROMISC": 0x100,
    "UP": rtnl.IFF_UP,
    "LOWER_UP": 0x10000,
}
"""In the order in which they are written (netdevice(7))."""
_STATES: Final = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
_PROTOCOLS: Final = {1: "redirect", 2: "kernel", 4: "static", 9: "ra", 16: "dhcp"}
_KINDS: Final = {1: "", 6: "blackhole ", 7: "unreachable ", 8: "prohibit "}
_PREFERENCES: Final = {0: "medium", 1: "high", 3: "low"}
_IFLA_LINK_NETNSID: Final = 37
_RTA_PREF: Final = 20
_RT_SCOPE_LINK: Final = 253


class Shown(NamedTuple):
    """A link as it is shown: `name` with what is behind it, such as `eth0@if5`."""

    ifindex: int
    name: str
    state: str
    flags: int
    mac: str
    master: int
    stalled: bool
    """What is behind it, in this namespace, is not up."""

    def line(self, text: str) -> str:
        """Name, state, and `text`."""
        return f"{self.name:<16} {self.state:<14} {text}"


def shown(netlink: Netlink) -> list[Shown]:
    """Every link of the socket's namespace."""
    request = Request(rtnl.RTM_GETLINK, NLM_F_DUMP, rtnl.LINK.pack(0, 0, 0, 0, 0), "list links")
    read = [
        (rtnl.LINK.unpack_from(answer), dict(attributes(answer, rtnl.LINK.size)))
        for answer in netlink.ask(request)
    ]
    plain = {head[2]: fields[rtnl.IFLA_IFNAME].rstrip(b"\0").decode() for head, fields in read}
    up = {head[2] for head, _ in read if head[3] & rtnl.IFF_UP}
    found = []
    for (_, _, index, flags, _), fields in read:
        below = number(fields.get(rtnl.IFLA_LINK, b""))
        far = _IFLA_LINK_NETNSID in fields or below not in plain
        behind = f"@{f'if{below}' if far else plain[below]}" if below else ""
        found.append(
            Shown(
                index,
                plain[index] + behind,
                _STATES[number(fields.get(rtnl.IFLA_OPERSTATE, b"\0"))],
                flags,
                rtnl.mac_text(fields.get(rtnl.IFLA_ADDRESS, b"")),
                number(fields.get(rtnl.IFLA_MASTER, b"")),
                bool(below) and not far and below not in up,
            )
        )
    return found


def link_line(link: Shown) -> str:
    """One link as `ip -br link` shows it."""
    up, running = link.flags & rtnl.IFF_UP, link.flags & rtnl.IFF_RUNNING
    words = ["NO-CARRIER"] if up and not running else []
    words += [word for word, bit in _FLAGS.items() if link.flags & bit]
    words += ["M-DOWN"] if link.stalled else []
    return link.line(f"{link.mac} <{','.join(words)}>")


def address_lines(
    links: list[Shown], found: list[netstate.LinkAddress], family: Family | None
) -> Iterator[str]:
    """Each link with its addresses, as `ip -br addr` shows them; of one family, or of both."""
    for link in links:
        own = [item.address for item in found if item.ifindex == link.ifindex]
        texts = [str(address) for address in own if family in (None, address.version)]
        if texts or family is None:
            yield link.line(" ".join(texts))


def route_lines(netlink: Netlink, family: Family) -> Iterator[str]:
    """The main table, as `ip route` shows it."""
    names = {link.ifindex: link.name for link in netstate.links(netlink)}
    asked = socket.AF_INET if family == 4 else socket.AF_INET6
    for answer in netstate.of_family(netlink, netstate.list_routes(asked)):
        _, length, _, _, table, protocol, scope, kind, _ = rtnl.ROUTE.unpack_from(answer)
        fields = dict(attributes(answer, rtnl.ROUTE.size))
        if number(fields.get(rtnl.RTA_TABLE, bytes([table]))) != rtnl.MAIN_TABLE:
            continue
        if kind not in _KINDS:
            continue
        words = [_KINDS[kind] + _destination(fields.get(rtnl.RTA_DST), length)]
        if rtnl.RTA_GATEWAY in fields:
            words.append(f"via {ip_address(fields[rtnl.RTA_GATEWAY])}")
        if rtnl.RTA_OIF in fields:
            words.append(f"dev {names[number(fields[rtnl.RTA_OIF])]}")
        if protocol != rtnl.RTPROT_BOOT:
            words.append(f"proto {_PROTOCOLS.get(protocol, protocol)}")
        if scope == _RT_SCOPE_LINK:
            words.append("scope link")
        if rtnl.RTA_PREFSRC in fields:
            words.append(f"src {ip_address(fields[rtnl.RTA_PREFSRC])}")
        if rtnl.RTA_PRIORITY in fields:
            words.append(f"metric {number(fields[rtnl.RTA_PRIORITY])}")
        if _RTA_PREF in fields:
            words.append(f"pref {_PREFERENCES.get(fields[_RTA_PREF][0], fields[_RTA_PREF][0])}")
        yield " ".join(words)


def _destination(packed: bytes | None, length: int) -> str:
    if packed is None:
        return "default"
    address = ip_address(packed)
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"
