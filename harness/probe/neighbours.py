"""Neighbours that are still being looked for: who could be found late, and who could not.

A packet to a neighbour that is not known yet waits in its INCOMPLETE entry. The request
goes out at once and to everybody, so whoever has the address has answered by the time
that the world is quiet, and for all others silence is final: no need to wait the three
seconds until the kernel gives up. Two things make an answer come late:

- who answers *for somebody else* lets the neighbour wait on purpose, for a random time of
  up to `proxy_delay` (0.8 s): proxy ARP, with a VLAN's private one, proxied and anycast
  IPv6 addresses (arp(7), RFC 4861 7.2.7 and 7.2.8). Such requests wait in one queue for
  each family, whose length the kernel tells (`Proxies`);
- an entry that was INCOMPLETE already: its next request goes out up to a second later,
  and the address may be somebody's since. They are forgotten before anything is asked
  (`forget_unresolved`), so that each question starts with a request of its own.

They are forgotten afterwards too. A packet that waits belongs to its socket, closed or not,
and that one to its namespace: a container that ends then would leave it, and its end of each
cable, to the world until the kernel gives up.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from linux import netstate, rtnl
from linux.netlink import Netlink
from linux.netns import NetNS
from linux.rtnl import Address


class Proxies:
    """Whether an answer to a neighbour that somebody waits for is being held back.

    `control` is any namespace; `spaces` are those that may wait or answer. The kernel keeps
    one queue for all namespaces of the machine: what strangers have in it counts only while
    one of `spaces` waits for an address for which one of them answers, three seconds at most.
    """

    def __init__(self, control: NetNS, spaces: Sequence[NetNS]) -> None:
        self._spaces = spaces
        self._netlink = Netlink(control)
        self._answered: set[Address] | None = None
        self._answers_any = False

    def hold(self) -> bool:
        """Whether something is held back now."""
        versions = netstate.proxied_requests(self._netlink)
        return bool(versions) and any(self._waits(space, versions) for space in self._spaces)

    def _waits(self, space: NetNS, versions: set[int]) -> bool:
        with Netlink(space) as netlink:
            unresolved = {item.address for item in _unresolved(netlink)}
        return any(item.version in versions and self._answers_for(item) for item in unresolved)

    def _answers_for(self, address: Address) -> bool:
        if self._answered is None:
            self._answered = set()
            for space in self._spaces:
                with Netlink(space) as netlink:
                    self._answered |= netstate.proxied(netlink)
                with space.entered():
                    self._answered |= _anycast()
                    self._answers_any |= _proxies_arp()
        return address in self._answered or (address.version == 4 and self._answers_any)

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_unresolved(netlink: Netlink) -> None:
    """Forget every neighbour that its namespace looks for; what waits for it is lost."""
    forgotten = [rtnl.del_neighbour(entry.ifindex, entry.address) for entry in _unresolved(netlink)]
    netlink.send(forgotten, missing_ok=True)


def _unresolved(netlink: Netlink) -> list[netstate.Neighbour]:
    return list(netstate.neighbours(netlink, state=rtnl.NUD_INCOMPLETE))


def _anycast() -> set[Address]:
    """The anycast addresses of the namespace that the caller is in."""
    with open("/proc/thread-self/net/anycast6", encoding="ascii") as file:
        return {ip_address(bytes.fromhex(line.split()[2])) for line in file}


def _proxies_arp() -> bool:
    """Whether it answers ARP for what it has a route to, on any link."""
    switches = glob.iglob("/proc/sys/net/ipv4/conf/*/proxy_arp*")
    return any(Path(switch).read_text("ascii").strip() != "0" for switch in switches)
