"""A small ip(8) for machines that have none.

What it takes is iproute2's own grammar, so that all that is learnt here holds there.
What it shows is iproute2's brief form (`ip -br`), line for line, asked for or not.
`docs/four-modes.md` is carried out with either, and the outputs must be the same.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final, NamedTuple

from harness.lab import shell
from harness.model.plan import Family
from harness.sandbox import sandbox
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import NLM_F_DUMP, Netlink, Request, attr, attributes, number, u32
from linux.netns import NetNS

USAGE: Final = """\
usage: ip [-4|-6] [-n NETNS] OBJECT COMMAND
  ip link add NAME type veth peer name PEER | type bridge | type dummy
  ip link set NAME [up|down] [master BRIDGE|nomaster] [netns NETNS|PID] [name NEW]
                   [mtu BYTES] [address MAC]
  ip link del NAME
  ip addr add|del ADDRESS/PREFIX dev NAME
  ip route add|del default|PREFIX [via ADDRESS] [dev NAME]
  ip link|addr [show] [[dev] NAME] [master BRIDGE]      ip route [show] [default|PREFIX]
  ip netns [list]                                       ip netns exec NAME COMMAND…
This is the lab's own, for machines without iproute2: what it shows is always brief (-br).
"""
_OUTSIDE: Final = "ip: this one is for the lab only; run it in there: netmodes lab\n"
_COMMANDS: Final = ("add", "set", "show", "list", "delete")
_RT_SCOPE_NOWHERE: Final = 255


def main(argv: Sequence[str]) -> int:
    """Do one thing; 1 when the command line makes no sense, 2 when the kernel refuses."""
    if not sandbox.inside():
        sys.stderr.write(_OUTSIDE)
        return 1
    try:
        return _run(Arguments(argv))
    except UsageError as error:
        sys.stderr.write(f"ip: {error}\n{USAGE}")
        return 1
    except ValueError as error:
        sys.stderr.write(f"ip: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"ip: {error.strerror or error}\n")
        return 2


def _run(words: Arguments) -> int:
    family: Family | None = None
    while words:
        if words.skip("-n", "-netns"):
            shell.enter(words.take("the name of a namespace"))
        elif words.skip("-4"):
            family = 4
        elif words.skip("-6"):
            family = 6
        elif not words.skip("-br", "-brief"):
            break
    if not words or words.skip("help", "-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    kind = words.choice("the object", among=("link", "address", "route", "netns"))
    if kind == "netns":
        return _netns(words)
    with Netlink() as netlink:
        if kind == "link":
            lines = _link(netlink, words)
        elif kind == "address":
            lines = _address(netlink, words, family)
        else:
            lines = _route(netlink, words, family)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _netns(words: Arguments) -> int:
    if words.choice("the command", among=("list", "exec"), default="list") == "exec":
        return shell.main(words.rest())
    sys.stdout.writelines(f"{name}\n" for name in shell.names())
    return 0


# --- links -----------------------------------------------------------------


def _index(netlink: Netlink, words: Arguments) -> int:
    words.skip("dev")
    return rtnetlink_dump.link(netlink, words.take("the link's name")).ifindex


def _link(netlink: Netlink, words: Arguments) -> list[str]:
    match words.choice("the command", among=_COMMANDS, default="show"):
        case "add":
            netlink.send([_new_link(words)])
        case "set":
            _set_link(netlink, words)
        case "delete":
            words.skip("dev")
            netlink.send([rtnetlink.del_link(words.take("the link's name"))])
        case _:
            return [link_line(link) for link in _chosen(netlink, words)]
    return []


def _chosen(netlink: Netlink, words: Arguments) -> list[ShownLink]:
    """The links that a command asks for."""
    links = shown(netlink)
    while words:
        if words.skip("master"):
            bridge = _index(netlink, words)
            links = [link for link in links if link.master == bridge]
        else:
            only = _index(netlink, words)
            links = [link for link in links if link.ifindex == only]
    return links


def _new_link(words: Arguments) -> Request:
    words.skip("name")
    name = words.take("the link's name")
    if not words.skip("type"):
        raise UsageError("the type is missing: type veth, bridge or dummy")
    kind = words.choice("the type", among=("veth", "bridge", "dummy"))
    if kind != "veth":
        return (
            rtnetlink.add_bridge(name, up=False)
            if kind == "bridge"
            else rtnetlink.add_link(kind, name)
        )
    if not (words.skip("peer") and words.skip("name")):
        raise UsageError("a veth has two ends: peer name PEER is missing")
    return rtnetlink.add_veth(name, words.take("the peer's name"), up=False)


def _set_link(netlink: Netlink, words: Arguments) -> None:
    """Everything in one message: a link that is moved *and* renamed is renamed over there."""
    index = _index(netlink, words)
    changes: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        while words:
            match words.take("what to set"):
                case "up":
                    changes["up"] = True
                case "down":
                    changes["up"] = False
                case "nomaster":
                    changes["master"] = 0
                case "master":
                    changes["master"] = _index(netlink, words)
                case "name":
                    changes["name"] = words.take("the new name")
                case "mtu":
                    changes["mtu"] = int(words.take("the MTU"))
                case "address":
                    changes["mac"] = words.take("the MAC")
                case "netns":
                    space = _namespace(words.take("a namespace's name, or a pid"))
                    changes["netns"] = stack.enter_context(space).fd
                case other:
                    raise UsageError(f"{other!r} is nothing that can be set")
        netlink.send([rtnetlink.set_link(index, **changes)])


def _namespace(word: str) -> NetNS:
    if word.isdigit() and word not in shell.names():
        return NetNS.at(f"/proc/{word}/ns/net")
    return NetNS.at(str(shell.NAMES / word))


# --- addresses and routes --------------------------------------------------


def _address(netlink: Netlink, words: Arguments, family: Family | None) -> list[str]:
    command = words.choice("the command", among=_COMMANDS, default="show")
    if command in ("show", "list"):
        links = _chosen(netlink, words)
        return list(address_lines(links, rtnetlink_dump.addresses(netlink), family))
    address = ip_interface(words.take("the address"))
    index = _index(netlink, words)
    make = rtnetlink.del_address if command == "delete" else rtnetlink.add_address
    netlink.send([make(index, address)])
    return []


def _route(netlink: Netlink, words: Arguments, family: Family | None) -> list[str]:
    command = words.choice("the command", among=_COMMANDS, default="show")
    if command in ("show", "list"):
        only = words.take("the destination") if words else ""
        lines = list(route_lines(netlink, family or 4))
        return [line for line in lines if not only or line.split()[0] == only]
    where = words.take("the destination")
    network = None if where == "default" else ip_network(where)
    found = words.pairs("via", "dev")
    via = ip_address(found["via"]) if "via" in found else None
    oif = rtnetlink_dump.link(netlink, found["dev"]).ifindex if "dev" in found else None
    if command == "delete":
        version = network.version if network else via.version if via else family or 4
        packed = network.network_address.packed if network and network.prefixlen else b""
        body = rtnetlink.ROUTE.pack(
            socket.AF_INET if version == 4 else socket.AF_INET6,
            network.prefixlen if network else 0,
            *(0, 0, rtnetlink.MAIN_TABLE, 0, _RT_SCOPE_NOWHERE, 0, 0),
        )
        body += attr(rtnetlink.RTA_DST, packed) if packed else b""
        body += attr(rtnetlink.RTA_GATEWAY, via.packed) if via else b""
        body += u32(rtnetlink.RTA_OIF, oif) if oif else b""
        netlink.send([Request(rtnetlink.RTM_DELROUTE, 0, body, f"remove route {where}")])
    elif network is None and via is None:
        raise UsageError("a default route goes via ADDRESS")
    else:
        netlink.send(
            [rtnetlink.add_route(network, via=via, oif=oif, protocol=rtnetlink.RTPROT_BOOT)]
        )
    return []


_FLAGS: Final = {
    "LOOPBACK": 0x8,
    "BROADCAST": 0x2,
    "POINTOPOINT": 0x10,
    "MULTICAST": 0x1000,
    "NOARP": 0x80,
    "ALLMULTI": 0x200,
    "PROMISC": 0x100,
    "UP": rtnetlink.IFF_UP,
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


class ShownLink(NamedTuple):
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


def shown(netlink: Netlink) -> list[ShownLink]:
    """Every link of the socket's namespace."""
    request = Request(
        rtnetlink.RTM_GETLINK, NLM_F_DUMP, rtnetlink.LINK.pack(0, 0, 0, 0, 0), "list links"
    )
    read = [
        (rtnetlink.LINK.unpack_from(answer), dict(attributes(answer, rtnetlink.LINK.size)))
        for answer in netlink.ask(request)
    ]
    plain = {head[2]: fields[rtnetlink.IFLA_IFNAME].rstrip(b"\0").decode() for head, fields in read}
    up = {head[2] for head, _ in read if head[3] & rtnetlink.IFF_UP}
    found = []
    for (_, _, index, flags, _), fields in read:
        below = number(fields.get(rtnetlink.IFLA_LINK, b""))
        far = _IFLA_LINK_NETNSID in fields or below not in plain
        behind = f"@{f'if{below}' if far else plain[below]}" if below else ""
        found.append(
            ShownLink(
                index,
                plain[index] + behind,
                _STATES[number(fields.get(rtnetlink.IFLA_OPERSTATE, b"\0"))],
                flags,
                rtnetlink.mac_text(fields.get(rtnetlink.IFLA_ADDRESS, b"")),
                number(fields.get(rtnetlink.IFLA_MASTER, b"")),
                bool(below) and not far and below not in up,
            )
        )
    return found


def link_line(link: ShownLink) -> str:
    """One link as `ip -br link` shows it."""
    up, running = link.flags & rtnetlink.IFF_UP, link.flags & rtnetlink.IFF_RUNNING
    words = ["NO-CARRIER"] if up and not running else []
    words += [word for word, bit in _FLAGS.items() if link.flags & bit]
    words += ["M-DOWN"] if link.stalled else []
    return link.line(f"{link.mac} <{','.join(words)}>")


def address_lines(
    links: list[ShownLink], found: list[rtnetlink_dump.LinkAddress], family: Family | None
) -> Iterator[str]:
    """Each link with its addresses, as `ip -br addr` shows them; of one family, or of both."""
    for link in links:
        own = [item.address for item in found if item.ifindex == link.ifindex]
        texts = [str(address) for address in own if family in (None, address.version)]
        if texts or family is None:
            yield link.line(" ".join(texts))


def route_lines(netlink: Netlink, family: Family) -> Iterator[str]:
    """The main table, as `ip route` shows it."""
    names = {link.ifindex: link.name for link in rtnetlink_dump.links(netlink)}
    asked = socket.AF_INET if family == 4 else socket.AF_INET6
    for answer in rtnetlink_dump.of_family(netlink, rtnetlink_dump.list_routes(asked)):
        _, length, _, _, table, protocol, scope, kind, _ = rtnetlink.ROUTE.unpack_from(answer)
        fields = dict(attributes(answer, rtnetlink.ROUTE.size))
        if number(fields.get(rtnetlink.RTA_TABLE, bytes([table]))) != rtnetlink.MAIN_TABLE:
            continue
        if kind not in _KINDS:
            continue
        words = [_KINDS[kind] + _destination(fields.get(rtnetlink.RTA_DST), length)]
        if rtnetlink.RTA_GATEWAY in fields:
            words.append(f"via {ip_address(fields[rtnetlink.RTA_GATEWAY])}")
        if rtnetlink.RTA_OIF in fields:
            words.append(f"dev {names[number(fields[rtnetlink.RTA_OIF])]}")
        if protocol != rtnetlink.RTPROT_BOOT:
            words.append(f"proto {_PROTOCOLS.get(protocol, protocol)}")
        if scope == _RT_SCOPE_LINK:
            words.append("scope link")
        if rtnetlink.RTA_PREFSRC in fields:
            words.append(f"src {ip_address(fields[rtnetlink.RTA_PREFSRC])}")
        if rtnetlink.RTA_PRIORITY in fields:
            words.append(f"metric {number(fields[rtnetlink.RTA_PRIORITY])}")
        if _RTA_PREF in fields:
            words.append(f"pref {_PREFERENCES.get(fields[_RTA_PREF][0], fields[_RTA_PREF][0])}")
        yield " ".join(words)


def _destination(packed: bytes | None, length: int) -> str:
    if packed is None:
        return "default"
    address = ip_address(packed)
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"


class UsageError(Exception):
    """The command line makes no sense; the message says where."""


class Arguments:
    """What is left of a command line."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)

    def __bool__(self) -> bool:
        return bool(self._words)

    def take(self, what: str) -> str:
        """The next word. Raises `UsageError` when there is none, naming `what` it should be."""
        if not self._words:
            raise UsageError(f"{what} is missing")
        return self._words.pop(0)

    def rest(self) -> list[str]:
        """All that is left."""
        left, self._words = self._words, []
        return left

    def skip(self, *words: str) -> bool:
        """Leave out the next word if it is one of `words`; whether it was."""
        if self._words and self._words[0] in words:
            del self._words[0]
            return True
        return False

    def choice(self, what: str, *, among: Sequence[str], default: str = "") -> str:
        """The one of `among` that the next word begins, as iproute2 lets one write `a` for `add`.

        The first that fits is meant. Raises `UsageError` when none does.
        """
        if not self._words and default:
            return default
        word = self.take(what)
        for name in among:
            if name.startswith(word):
                return name
        raise UsageError(f"{what} {word!r} is not among: {', '.join(among)}")

    def pairs(self, *keys: str) -> dict[str, str]:
        """Read `key value` pairs to the end. Raises `UsageError` for another key."""
        found = {}
        while self._words:
            key = self.take("a key")
            if key not in keys:
                raise UsageError(f"{key!r} is not among: {', '.join(keys)}")
            found[key] = self.take(f"the value of {key}")
        return found
