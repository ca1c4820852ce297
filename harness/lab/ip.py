"""A small replacement for ip(8) on machines without iproute2.

It has the grammar of iproute2, so the same commands work. Its output is iproute2's brief form (`ip
-br`), line for line, with or without `-br`. A test runs the commands of `docs/four-modes.md` with
both programs, and the outputs must be equal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final

from harness.lab import shell
from harness.model.plan import Family
from harness.sandbox import sandbox
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
This ip belongs to the lab, for machines without iproute2. Its output is always brief (-br).
"""
_OUTSIDE: Final = "ip: this ip works only in a lab; start one with: netmodes lab\n"
_COMMANDS: Final = ("add", "set", "show", "list", "delete")
_FLAGS: Final = {
    "LOOPBACK": 0x8,
    "BROADCAST": 0x2,
    "POINTOPOINT": 0x10,
    "MULTICAST": 0x1000,
    "NOARP": 0x80,
    "ALLMULTI": 0x200,
    "PROMISC": 0x100,
    "UP": 0x1,
    "LOWER_UP": 0x10000,
}
"""Flags of netdevice(7), in iproute2's order."""
_RUNNING: Final = 0x40
_AF_INET, _AF_INET6 = 2, 10
_FAMILIES: Final = {4: _AF_INET, 6: _AF_INET6}
_MAIN_TABLE: Final = 254
_NODAD: Final = 0x02
_LINK_SCOPE, _NOWHERE_SCOPE = 253, 255
_BOOT: Final = 3
"""RTPROT_BOOT: iproute2's protocol of a route that is added by hand."""
_PROTOCOLS: Final = {1: "redirect", 2: "kernel", 4: "static", 9: "ra", 16: "dhcp"}
_KINDS: Final = {1: "", 6: "blackhole ", 7: "unreachable ", 8: "prohibit "}
_PREFERENCES: Final = {0: "medium", 1: "high", 3: "low"}

IPRoute = Any
"""`pyroute2.IPRoute`, which has no type hints."""


def main(argv: Sequence[str]) -> int:
    """Run one `ip` command; return 1 for a malformed command line, 2 if the kernel refuses."""
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
    from pyroute2 import IPRoute  # takes a tenth of a second to import

    with IPRoute(ext_ack=True, strict_check=True) as ip:
        if kind == "link":
            lines = _link(ip, words)
        elif kind == "address":
            lines = _address(ip, words, family)
        else:
            lines = _route(ip, words, family)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _netns(words: Arguments) -> int:
    if words.choice("the command", among=("list", "exec"), default="list") == "exec":
        return shell.main(words.rest())
    sys.stdout.writelines(f"{name}\n" for name in shell.names())
    return 0


@contextlib.contextmanager
def _request(what: str) -> Iterator[None]:
    """Convert the kernel's refusal in the body to an `OSError` that names the request."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        code, text = error.args
        plain = os.strerror(code)
        explained = f" ({text})" if text and text != plain else ""
        raise OSError(code, f"{what}: {plain}{explained}") from None


# --- links -----------------------------------------------------------------


def _index(ip: IPRoute, words: Arguments) -> int:
    words.skip("dev")
    return _index_of(ip, words.take("the link's name"))


def _index_of(ip: IPRoute, name: str) -> int:
    with _request(f"look up link {name}"):
        (link,) = ip.link("get", ifname=name)
    index: int = link["index"]
    return index


def _link(ip: IPRoute, words: Arguments) -> list[str]:
    match words.choice("the command", among=_COMMANDS, default="show"):
        case "add":
            _add_link(ip, words)
        case "set":
            _set_link(ip, words)
        case "delete":
            words.skip("dev")
            name = words.take("the link's name")
            with _request(f"remove link {name}"):
                ip.link("del", ifname=name)
        case _:
            links = list(ip.get_links())
            return [_link_line(link, links) for link in _selected(ip, links, words)]
    return []


def _selected(ip: IPRoute, links: list[Any], words: Arguments) -> list[Any]:
    """Return the links that a `show` command selects."""
    while words:
        if words.skip("master"):
            bridge = _index(ip, words)
            links = [link for link in links if link.get("master") == bridge]
        else:
            only = _index(ip, words)
            links = [link for link in links if link["index"] == only]
    return links


def _add_link(ip: IPRoute, words: Arguments) -> None:
    words.skip("name")
    name = words.take("the link's name")
    if not words.skip("type"):
        raise UsageError("the type is missing: give type veth, bridge or dummy")
    kind = words.choice("the type", among=("veth", "bridge", "dummy"))
    more = {}
    if kind == "veth":
        if not (words.skip("peer") and words.skip("name")):
            raise UsageError("the other end of the veth pair is missing: give peer name PEER")
        more["peer"] = words.take("the peer's name")
    with _request(f"add {kind} {name}"):
        ip.link("add", ifname=name, kind=kind, **more)


def _set_link(ip: IPRoute, words: Arguments) -> None:
    """Change a link in one netlink message: the kernel moves the link first, then renames it."""
    index = _index(ip, words)
    changes: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        while words:
            match words.take("what to set"):
                case "up" | "down" as state:
                    changes["state"] = state
                case "nomaster":
                    changes["master"] = 0
                case "master":
                    changes["master"] = _index(ip, words)
                case "name":
                    changes["ifname"] = words.take("the new name")
                case "mtu":
                    changes["mtu"] = int(words.take("the MTU"))
                case "address":
                    changes["address"] = words.take("the MAC")
                case "netns":
                    space = _namespace(words.take("a namespace's name, or a pid"))
                    changes["net_ns_fd"] = stack.enter_context(space).fd
                case other:
                    raise UsageError(f"unknown setting {other!r}")
        with _request(f"change link {changes.get('ifname', index)}"):
            ip.link("set", index=index, **changes)


def _namespace(word: str) -> NetNS:
    if word.isdigit() and word not in shell.names():
        return NetNS.at(f"/proc/{word}/ns/net")
    return NetNS.at(str(shell.NAMES / word))


def _line(link: Any, links: list[Any], text: str) -> str:
    """Return a line about a link: name with parent or peer (`eth0@if5`), state, and `text`."""
    name, below = link.get("ifname"), link.get("link")
    if below:
        here = [item.get("ifname") for item in links if item["index"] == below]
        name += f"@{here[0] if here and link.get('link_netnsid') is None else f'if{below}'}"
    return f"{name:<16} {link.get('operstate'):<14} {text}"


def _link_line(link: Any, links: list[Any]) -> str:
    """Return one line of `ip -br link`."""
    flags, below = link["flags"], link.get("link")
    words = ["NO-CARRIER"] if flags & _FLAGS["UP"] and not flags & _RUNNING else []
    words += [word for word, bit in _FLAGS.items() if flags & bit]
    if below and link.get("link_netnsid") is None:
        parents = [item for item in links if item["index"] == below]
        words += ["M-DOWN" for item in parents if not item["flags"] & _FLAGS["UP"]]
    return _line(link, links, f"{link.get('address') or ''} <{','.join(words)}>")


# --- addresses and routes --------------------------------------------------


def _address(ip: IPRoute, words: Arguments, family: Family | None) -> list[str]:
    command = words.choice("the command", among=_COMMANDS, default="show")
    if command in ("show", "list"):
        links = list(ip.get_links())
        return list(_address_lines(ip, _selected(ip, links, words), links, family))
    address = ip_interface(words.take("the address"))
    index = _index(ip, words)
    # an IPv6 address is usable at once, without duplicate address detection
    flags = {"flags": _NODAD} if command == "add" and address.version == 6 else {}
    verb, what = ("del", "remove") if command == "delete" else ("add", "add")
    with _request(f"{what} address {address}"):
        ip.addr(
            verb,
            index=index,
            address=str(address.ip),
            prefixlen=address.network.prefixlen,
            **flags,
        )
    return []


def _address_lines(
    ip: IPRoute, selected: list[Any], links: list[Any], family: Family | None
) -> Iterator[str]:
    """Yield the lines of `ip -br addr`: for all links, or for links with addresses of `family`."""
    found = list(ip.get_addr())
    for link in selected:
        texts = [
            f"{item.get('local') or item.get('address')}/{item['prefixlen']}"
            for item in found
            if item["index"] == link["index"] and family in (None, _version(item))
        ]
        if texts or family is None:
            yield _line(link, links, " ".join(texts))


def _version(item: Any) -> int:
    return 4 if item["family"] == _AF_INET else 6


def _route(ip: IPRoute, words: Arguments, family: Family | None) -> list[str]:
    command = words.choice("the command", among=_COMMANDS, default="show")
    if command in ("show", "list"):
        only = words.take("the destination") if words else ""
        lines = list(_route_lines(ip, family or 4))
        return [line for line in lines if not only or line.split()[0] == only]
    where = words.take("the destination")
    network = None if where == "default" else ip_network(where)
    found = words.pairs("via", "dev")
    via = ip_address(found["via"]) if "via" in found else None
    version = network.version if network else via.version if via else family or 4
    route: dict[str, Any] = {"family": _FAMILIES[version], "dst": where, "table": _MAIN_TABLE}
    if via:
        route["gateway"] = str(via)
    if "dev" in found:
        route["oif"] = _index_of(ip, found["dev"])
    if command == "delete":
        with _request(f"remove route {where}"):
            ip.route("del", **route, scope=_NOWHERE_SCOPE, proto=0, type=0)
    elif network is None and via is None:
        raise UsageError("the gateway of the default route is missing: give via ADDRESS")
    else:
        scope = 0 if via or version == 6 else _LINK_SCOPE
        hop = via or f"link {found.get('dev')}"
        with _request(f"add route {where} via {hop}"):
            ip.route("add", **route, scope=scope, proto=_BOOT)
    return []


def _route_lines(ip: IPRoute, family: Family) -> Iterator[str]:
    """Yield the lines of the main routing table, as `ip route` prints them."""
    names = {link["index"]: link.get("ifname") for link in ip.get_links()}
    for route in ip.get_routes(family=_FAMILIES[family], table=_MAIN_TABLE):
        if route["type"] not in _KINDS:
            continue
        destination, length = route.get("dst") or "default", route["dst_len"]
        if destination != "default" and length != ip_address(destination).max_prefixlen:
            destination = f"{destination}/{length}"
        words = [_KINDS[route["type"]] + destination]
        if gateway := route.get("gateway"):
            words.append(f"via {gateway}")
        if oif := route.get("oif"):
            words.append(f"dev {names[oif]}")
        if (protocol := route["proto"]) != _BOOT:
            words.append(f"proto {_PROTOCOLS.get(protocol, protocol)}")
        if route["scope"] == _LINK_SCOPE:
            words.append("scope link")
        if source := route.get("prefsrc"):
            words.append(f"src {source}")
        if metric := route.get("priority"):
            words.append(f"metric {metric}")
        if (preference := route.get("pref")) is not None:
            words.append(f"pref {_PREFERENCES.get(preference, preference)}")
        yield " ".join(words)


class UsageError(Exception):
    """The command line is malformed; the message names the word that is wrong or missing."""


class Arguments:
    """The words of a command line that are still to be parsed."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)

    def __bool__(self) -> bool:
        return bool(self._words)

    def take(self, what: str) -> str:
        """Return the next word. Raises `UsageError`, which says that `what` is missing."""
        if not self._words:
            raise UsageError(f"{what} is missing")
        return self._words.pop(0)

    def rest(self) -> list[str]:
        """Return all remaining words of the command line."""
        left, self._words = self._words, []
        return left

    def skip(self, *words: str) -> bool:
        """Skip the next word if it is one of `words`; return whether it was skipped."""
        if self._words and self._words[0] in words:
            del self._words[0]
            return True
        return False

    def choice(self, what: str, *, among: Sequence[str], default: str = "") -> str:
        """Return the first item of `among` that the next word abbreviates, as iproute2 does.

        Raises `UsageError` if there is none.
        """
        if not self._words and default:
            return default
        word = self.take(what)
        for name in among:
            if name.startswith(word):
                return name
        raise UsageError(f"{what} {word!r} is not one of: {', '.join(among)}")

    def pairs(self, *keys: str) -> dict[str, str]:
        """Return the remaining `key value` pairs. Raises `UsageError` for an unknown key."""
        found = {}
        while self._words:
            key = self.take("a key")
            if key not in keys:
                raise UsageError(f"{key!r} is not one of: {', '.join(keys)}")
            found[key] = self.take(f"the value of {key}")
        return found
