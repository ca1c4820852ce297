"""A small ip(8) for machines that have none.

What it takes is iproute2's own grammar, so that all that is learnt here holds there.
What it shows is iproute2's brief form (`ip -br`), line for line, asked for or not.
`docs/four-modes.md` is carried out with either, and the outputs must be the same.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final

from harness import sandbox
from harness.lab import brief, inside
from harness.lab.words import UsageError, Words
from harness.model import Family
from linux import netstate, rtnl
from linux.netlink import Netlink, Request, attr, u32
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
        return _run(Words(argv))
    except UsageError as error:
        sys.stderr.write(f"ip: {error}\n{USAGE}")
        return 1
    except ValueError as error:
        sys.stderr.write(f"ip: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"ip: {error.strerror or error}\n")
        return 2


def _run(words: Words) -> int:
    family: Family | None = None
    while words:
        if words.skip("-n", "-netns"):
            inside.enter(words.take("the name of a namespace"))
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


def _netns(words: Words) -> int:
    if words.choice("the command", among=("list", "exec"), default="list") == "exec":
        return inside.main(words.rest())
    sys.stdout.writelines(f"{name}\n" for name in inside.names())
    return 0


# --- links -----------------------------------------------------------------


def _index(netlink: Netlink, words: Words) -> int:
    words.skip("dev")
    return netstate.link(netlink, words.take("the link's name")).ifindex


def _link(netlink: Netlink, words: Words) -> list[str]:
    match words.choice("the command", among=_COMMANDS, default="show"):
        case "add":
            netlink.send([_new_link(words)])
        case "set":
            _set_link(netlink, words)
        case "delete":
            words.skip("dev")
            netlink.send([rtnl.del_link(words.take("the link's name"))])
        case _:
            return [brief.link_line(link) for link in _chosen(netlink, words)]
    return []


def _chosen(netlink: Netlink, words: Words) -> list[brief.Shown]:
    """The links that a command asks for."""
    links = brief.shown(netlink)
    while words:
        if words.skip("master"):
            bridge = _index(netlink, words)
            links = [link for link in links if link.master == bridge]
        else:
            only = _index(netlink, words)
            links = [link for link in links if link.ifindex == only]
    return links


def _new_link(words: Words) -> Request:
    words.skip("name")
    name = words.take("the link's name")
    if not words.skip("type"):
        raise UsageError("the type is missing: type veth, bridge or dummy")
    kind = words.choice("the type", among=("veth", "bridge", "dummy"))
    if kind != "veth":
        return rtnl.add_bridge(name, up=False) if kind == "bridge" else rtnl.add_link(kind, name)
    if not (words.skip("peer") and words.skip("name")):
        raise UsageError("a veth has two ends: peer name PEER is missing")
    return rtnl.add_veth(name, words.take("the peer's name"), up=False)


def _set_link(netlink: Netlink, words: Words) -> None:
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
        netlink.send([rtnl.set_link(index, **changes)])


def _namespace(word: str) -> NetNS:
    if word.isdigit() and word not in inside.names():
        return NetNS.at(f"/proc/{word}/ns/net")
    return NetNS.at(str(inside.NAMES / word))


# --- addresses and routes --------------------------------------------------


def _address(netlink: Netlink, words: Words, family: Family | None) -> list[str]:
    command = words.choice("the command", among=_COMMANDS, default="show")
    if command in ("show", "list"):
        links = _chosen(netlink, words)
        return list(brief.address_lines(links, netstate.addresses(netlink), family))
    address = ip_interface(words.take("the address"))
    index = _index(netlink, words)
    make = rtnl.del_address if command == "delete" else rtnl.add_address
    netlink.send([make(index, address)])
    return []


def _route(netlink: Netlink, words: Words, family: Family | None) -> list[str]:
    command = words.choice("the command", among=_COMMANDS, default="show")
    if command in ("show", "list"):
        only = words.take("the destination") if words else ""
        lines = list(brief.route_lines(netlink, family or 4))
        return [line for line in lines if not only or line.split()[0] == only]
    where = words.take("the destination")
    network = None if where == "default" else ip_network(where)
    found = words.pairs("via", "dev")
    via = ip_address(found["via"]) if "via" in found else None
    oif = netstate.link(netlink, found["dev"]).ifindex if "dev" in found else None
    if command == "delete":
        version = network.version if network else via.version if via else family or 4
        packed = network.network_address.packed if network and network.prefixlen else b""
        body = rtnl.ROUTE.pack(
            socket.AF_INET if version == 4 else socket.AF_INET6,
            network.prefixlen if network else 0,
            *(0, 0, rtnl.MAIN_TABLE, 0, _RT_SCOPE_NOWHERE, 0, 0),
        )
        body += attr(rtnl.RTA_DST, packed) if packed else b""
        body += attr(rtnl.RTA_GATEWAY, via.packed) if via else b""
        body += u32(rtnl.RTA_OIF, oif) if oif else b""
        netlink.send([Request(rtnl.RTM_DELROUTE, 0, body, f"remove route {where}")])
    elif network is None and via is None:
        raise UsageError("a default route goes via ADDRESS")
    else:
        netlink.send([rtnl.add_route(network, via=via, oif=oif, protocol=rtnl.RTPROT_BOOT)])
    return []
