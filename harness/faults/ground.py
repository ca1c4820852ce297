"""A network namespace to act in: what the authors of faults do to a host or a container.

Everything goes by way of the kernel, so that it works whatever runtime made the place.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final

from harness.faults.rulebook import Entry, entries
from harness.place import Place
from linux import netstate, nft, rtnl
from linux.netlink import Netlink, NetlinkError, Request

TABLE: Final = nft.Table("inet", "sabotage")
"""Where the rules of `Ground.rule` are. It is no violation that it stays: the fault is what
the rules do."""
BRIDGE_TABLE: Final = nft.Table("bridge", "sabotage")
RESIDUE: Final = ("nft table * sabotage", "nft chain * sabotage *", "nft rule * sabotage *")
"""What of a fault's own tools stays in a host, or goes with a flush, as in `Dialect.residue`."""

_ALL: Final = 3  # ETH_P_ALL
_THERE_OR_NOT: Final = frozenset(
    {errno.EEXIST, errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
)

Answer = Callable[[bytes], Iterable[bytes]]
"""What to send back for a frame that came in: no, one or several frames."""


class Ground:
    """One namespace, by a `Place`, with verbs that change it."""

    def __init__(self, place: Place) -> None:
        self.place = place

    # --- looking

    def links(self) -> dict[str, netstate.Link]:
        """Every interface by name."""
        return self.place.links()

    def link(self, name: str) -> netstate.Link:
        """One interface; `KeyError` when there is none."""
        return self.links()[name]

    def addresses(self, link: str) -> list[IPv4Interface | IPv6Interface]:
        """The addresses of an interface, without link-local ones."""
        return self.place.interfaces(link)

    # --- links, addresses, routes, neighbours

    def rtnl(self, *requests: Request) -> None:
        """Carry out requests of `linux.rtnl`, in order; `NetlinkError` names the one refused."""
        with self.place.open() as space, Netlink(space) as netlink:
            netlink.send(list(requests))

    def ensure(self, *requests: Request) -> None:
        """As `rtnl`, but what is there already, or gone already, is no failure."""
        for request in requests:
            try:
                self.rtnl(request)
            except NetlinkError as error:
                if error.errno not in _THERE_OR_NOT:
                    raise

    def set_link(self, link: str, /, **changes: Any) -> None:
        """Change an interface: `up`, `mtu`, `mac`, `name`, `master`, as in `rtnl.set_link`."""
        self.rtnl(rtnl.set_link(self.link(link).ifindex, **changes))

    def add_address(self, link: str, address: IPv4Interface | IPv6Interface) -> None:
        """Add an address; one that is there already is no failure."""
        self.ensure(rtnl.add_address(self.link(link).ifindex, address))

    def del_address(self, link: str, address: IPv4Interface | IPv6Interface) -> None:
        """Take an address away; one that is gone already is no failure."""
        self.ensure(rtnl.del_address(self.link(link).ifindex, address))

    def sysctl(self, key: str, value: str | int) -> None:
        """Set one sysctl by its name with dots, such as `net.ipv4.conf.eth0.proxy_arp`."""
        self.place.tune({key: value})

    # --- firewall

    def firewall(self, *requests: Request) -> None:
        """Carry out requests of `linux.nft` in one transaction."""
        with self.place.open() as space, nft.Nft(space) as opened:
            opened.apply(list(requests))

    def rule(
        self,
        hook: nft.Hook,
        *parts: Iterable[nft.Expression],
        priority: int = -350,
        nat: bool = False,
        bridge: bool = False,
    ) -> None:
        """Add a rule in a table of the sabotage's own: by default earlier than anybody's.

        `parts` are expressions of `linux.nft`, matches first. With `nat` it may translate
        addresses, with `bridge` it sees what passes between the ports of a bridge.
        """
        table = BRIDGE_TABLE if bridge else TABLE
        chain = f"{hook}{priority}{'nat' if nat else ''}"
        kind: Any = "nat" if nat else "filter"
        self.firewall(
            nft.add_table(table),
            nft.add_chain(table, chain, hook=hook, priority=priority, kind=kind),
            nft.add_rule(table, chain, *parts, comment="sabotage"),
        )

    def clear_rules(self) -> None:
        """Take away every rule of the sabotage's own."""
        for table in (TABLE, BRIDGE_TABLE):
            self.firewall(nft.add_table(table), nft.del_table(table))

    def rules(self) -> list[Entry]:
        """Every rule of everybody, with what it does."""
        with self.place.open() as space, nft.Nft(space) as opened:
            return entries(opened)

    def take_rules(self, wanted: Callable[[Entry], bool]) -> int:
        """Remove the rules, of whomever, that `wanted` picks; how many there were.

        What belongs to another process's socket cannot be changed and stays.
        """
        taken = 0
        for entry in filter(wanted, self.rules()):
            with contextlib.suppress(NetlinkError):
                self.firewall(nft.del_rule(entry.table, entry.rule))
                taken += 1
        return taken

    # --- processes and frames

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket inside; keep it in `site.memory` for as long as it shall be open."""
        return self.place.socket(family, kind, protocol)

    def respond(self, link: str, answer: Answer) -> None:
        """From now on answer every frame that comes in by a link, until the link is gone.

        Meant for the host: a socket inside a container keeps its namespace alive.
        """
        opened = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        opened.bind((link, _ALL))
        threading.Thread(target=_answer, args=(opened, answer), daemon=True).start()


def _answer(opened: socket.socket, answer: Answer) -> None:
    outgoing = 4  # PACKET_OUTGOING: packet(7)
    with opened:
        while True:
            try:
                frame, (_, _, kind, *_) = opened.recvfrom(1 << 16)
                if kind != outgoing:
                    for reply in answer(frame):
                        opened.send(reply)
            except OSError:  # the link is gone, or goes
                return
