"""Causes of a lost packet, found in the state of the network namespace that lost it.

The state is read after the replay, mostly by the kernel's own route lookup
(`linux.rtnetlink_dump`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.diagnosis.packet_path import PacketHeader, Role, Sighting
from linux import netns, rtnetlink, rtnetlink_dump
from linux.conntrack import Conntrack
from linux.netlink import Netlink, NetlinkError
from linux.netns import NetNS
from linux.nftables import PROTOCOLS
from linux.rtnetlink import Address
from linux.rtnetlink_dump import RouteLookup, route_to

UNANSWERED: Final = "no neighbour replied for"
_FORWARDING: Final = {4: "net.ipv4.conf.{}.forwarding", 6: "net.ipv6.conf.{}.forwarding"}
_UNRESOLVED: Final = rtnetlink.NUD_INCOMPLETE | rtnetlink.NUD_FAILED


def causes(
    namespace: str,
    space: NetNS,
    *,
    packet: PacketHeader,
    last: Sighting | None,
    trail: Sequence[Sighting],
    far: str = "",
) -> list[str]:
    """Return the reasons why `packet` went no further than `last`, the likeliest first.

    - `last`: the last sighting, `None` if no interface has seen the packet.
    - `trail`: all sightings of the probe's packets.
    - `far`: the host's end of the namespace's veth pair, such as `host/veth1`.

    The result is empty if the state of the namespace shows no cause.
    """
    with Netlink(space) as netlink:
        links = {link.name: link for link in rtnetlink_dump.links(netlink)}
        link = links.get(last.link) if last else None
        inspection = _Inspection(
            namespace=namespace, space=space, netlink=netlink, links=links, trail=trail, far=far
        )
        if last is None:
            return list(inspection.leaving(packet))
        if last.outgoing:
            return list(inspection.beyond(last, link))
        return list(inspection.within(_translated(space, packet), link))


def _translated(space: NetNS, packet: PacketHeader) -> PacketHeader:
    """Return the packet with its destination after NAT, which the kernel looks up in the routes."""
    names = {4: packet.protocol, 6: packet.protocol.replace("icmp", "icmpv6")}
    number = PROTOCOLS.get(names[packet.source.version])
    mine = (packet.source, packet.destination, packet.source_port, packet.destination_port)
    with Conntrack(space) as known:
        flows = known.all()
    for flow in flows:
        for there, back in ((flow.original, flow.reply), (flow.reply, flow.original)):
            ends = (there.source, there.destination, there.source_port, there.destination_port)
            if there.protocol == number and ends == mine:
                return replace(packet, destination=back.source)
    return packet


def silence_causes(
    namespace: str,
    space: NetNS,
    hop: Address,
    trail: Sequence[Sighting],
    *,
    port: rtnetlink_dump.Link | None = None,
) -> list[str]:
    """Return why the owner of the address `hop` did not reply to a neighbour solicitation.

    The result is empty if `namespace` does not own the address. `port` is the host's end of the
    namespace's veth pair.
    """
    with Netlink(space) as netlink:
        own = [item for item in rtnetlink_dump.addresses(netlink) if item.address.ip == hop]
        if not own or hop.is_loopback:
            return []
        links = {link.ifindex: link for link in rtnetlink_dump.links(netlink)}
    link = links[own[0].ifindex]
    seen = _discovery(trail, namespace, hop)
    where = f"{namespace}/{link.name}"
    if (Role.ADVERTISEMENT, True) in seen:
        how = "and its reply was lost"
    elif (Role.SOLICITATION, False) in seen:
        how = "received the solicitation and did not reply"
    else:
        how = f"and {_undelivered(link, port)}"
    return [f"{where} has {hop}, {how}"]


def _discovery(trail: Sequence[Sighting], namespace: str, hop: Address) -> set[tuple[Role, bool]]:
    """Return the neighbour discovery packets about `hop` that `namespace` sent or received.

    Each item is a packet's `Role`, such as a solicitation, and True if `namespace` sent the packet.
    """
    return {
        (item.seen.role, item.outgoing)
        for item in trail
        if item.namespace == namespace and item.seen.destination == hop
    }


def _undelivered(link: rtnetlink_dump.Link, port: rtnetlink_dump.Link | None) -> str:
    """Return why a neighbour solicitation does not arrive at `link`, whose veth peer is `port`."""
    end = f"its other end{f', host/{port.name},' if port else ''}"
    if not link.up:
        return "is down"
    if not link.carrier:
        return f"{end} is down"
    if port and port.master is None:
        return f"{end} is not in a bridge"
    if port and port.isolated:
        return f"{end} is isolated from other isolated ports"
    return "the solicitation did not arrive" + (f" through host/{port.name}" if port else "")


def duplicates(spaces: Mapping[str, NetNS], trail: Sequence[Sighting]) -> list[str]:
    """Return a line for each address or MAC that should be unique and occurs in several namespaces.

    Only addresses of packets in `trail` count, and only MACs of namespaces that these packets
    crossed.
    """
    seen = {address for item in trail for address in (item.seen.source, item.seen.destination)}
    near = {item.namespace for item in trail}
    owners: dict[str, list[str]] = {}
    for namespace, space in spaces.items():
        with Netlink(space) as netlink:
            links = {link.ifindex: link for link in rtnetlink_dump.links(netlink) if link.resolves}
            for item in rtnetlink_dump.addresses(netlink):
                if item.ifindex in links and item.address.ip in seen:
                    where = f"{namespace}/{links[item.ifindex].name}"
                    owners.setdefault(str(item.address.ip), []).append(where)
        for link in links.values():
            if link.master is None and link.mac and namespace in near:
                owners.setdefault(f"the MAC {link.mac}", []).append(f"{namespace}/{link.name}")
    return [
        f"{what} is used by {' and by '.join(dict.fromkeys(where))}"
        for what, where in owners.items()
        if len(set(where)) > 1
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspection:
    """The state of one network namespace, with methods that find the cause of a loss in it."""

    namespace: str
    space: NetNS
    netlink: Netlink
    links: Mapping[str, rtnetlink_dump.Link]
    trail: Sequence[Sighting]
    far: str

    def _by_index(self, ifindex: int | None) -> rtnetlink_dump.Link | None:
        return next((link for link in self.links.values() if link.ifindex == ifindex), None)

    def _no_carrier(self, link: rtnetlink_dump.Link) -> str:
        far = self.far and f", {self.far},"
        return f"link {self.namespace}/{link.name} has no carrier: its other end{far} is down"

    # --- places of the loss

    def leaving(self, packet: PacketHeader) -> Iterator[str]:
        """Yield the reasons why the packet never left the namespace of its sender."""
        found = route_to(self.netlink, packet.destination)
        if found.refused:
            yield from self._no_route(found, packet.destination)
            return
        yield from self._next_hop(found, packet.destination)

    def within(self, packet: PacketHeader, link: rtnetlink_dump.Link | None) -> Iterator[str]:
        """Yield the reasons why a packet that entered through `link` went no further."""
        if link is None:
            yield f"the link no longer exists in {self.namespace}"
            return
        entered = link
        if link.master is not None:
            bridge = self._by_index(link.master)
            yield from self._in_bridge(link, bridge)
            entered = bridge or link  # the kernel's input is the bridge
        own = any(
            item.address.ip == packet.destination for item in rtnetlink_dump.addresses(self.netlink)
        )
        try:
            found = route_to(
                self.netlink, packet.destination, source=packet.source, iif=entered.ifindex
            )
        except NetlinkError as error:
            yield f"the kernel of {self.namespace} cannot look up the route: {error}"
            return
        if found.refused:
            yield from self._refused(found, packet, entered, own=own)
        elif not found.local:
            yield from self._next_hop(found, packet.destination)

    def beyond(self, last: Sighting, link: rtnetlink_dump.Link | None) -> Iterator[str]:
        """Yield the reasons why a packet that left through `link` did not arrive anywhere."""
        if link is None:
            return
        if not link.up:
            yield f"link {last.where} is down"
        elif not link.carrier:
            yield self._no_carrier(link)
        ports = [item for item in self.links.values() if item.master == link.ifindex]
        if link.kind == "bridge":
            closed = [item.name for item in ports if not item.up or not item.carrier]
            if closed:
                yield f"ports of {last.where} that are down: {', '.join(closed)}"
            if not ports:
                yield f"bridge {last.where} has no port"

    # --- causes at a place

    def _in_bridge(
        self, port: rtnetlink_dump.Link, bridge: rtnetlink_dump.Link | None
    ) -> Iterator[str]:
        where = f"{self.namespace}/{bridge.name if bridge else 'its bridge'}"
        if port.port_state not in (None, rtnetlink.BR_STATE_FORWARDING):
            yield f"port {port.name} of {where} does not forward"
        if bridge and not bridge.up:
            yield f"bridge {where} is down"
        if port.isolated:
            yield f"port {port.name} of {where} is isolated from other isolated ports"

    def _refused(
        self, found: RouteLookup, packet: PacketHeader, entered: rtnetlink_dump.Link, *, own: bool
    ) -> Iterator[str]:
        version, at = packet.source.version, f"{self.namespace}/{entered.name}"
        if not own and not self._forwards(version, entered.name):
            yield f"{self.namespace} does not forward IPv{version} from {entered.name}"
        elif packet.source.is_loopback or packet.destination.is_loopback:
            yield f"{at} received a loopback address (route_localnet is off)"
        elif version == 4 and self._filters(packet.source, entered):
            yield (
                f"IP_RPFILTER: {self.namespace} does not expect {packet.source} at {at}: "
                f"its route to that address uses another link (rp_filter)"
            )
        elif not own:
            yield from self._no_route(found, packet.destination)
        else:
            yield f"{self.namespace} accepts no packet from {packet.source} at {at}"

    def _filters(self, source: Address, entered: rtnetlink_dump.Link) -> bool:
        """Return whether the reverse path filter drops a packet from `source`.

        The sysctl `rp_filter` (ip-sysctl) is 1 for strict and 2 for loose filtering.
        """
        keys = [f"net.ipv4.conf.{name}.rp_filter" for name in ("all", entered.name)]
        filtering = max(map(int, netns.read_sysctls(self.space, keys).values()))
        back = route_to(self.netlink, source)
        if filtering == 0:
            return False
        return bool(back.refused) or (filtering == 1 and back.oif != entered.ifindex)

    def _no_route(self, found: RouteLookup, to: Address) -> Iterator[str]:
        down = [
            name
            for name, link in self.links.items()
            if (name != "lo" or to.is_loopback) and not (link.up and link.carrier)
        ]
        if found.refused == "no route":
            yield f"{self.namespace} has no route to {to}"
        else:
            yield f"the route of {self.namespace} to {to} rejects the packet: {found.refused}"
        if down:
            yield f"links that are down in {self.namespace}: {', '.join(down)}"

    def _next_hop(self, found: RouteLookup, to: Address) -> Iterator[str]:
        hop, link = found.via or to, self._by_index(found.oif)
        if found.local:
            if not self.links["lo"].up:
                yield f"link {self.namespace}/lo is down"
            return
        if link is None:
            return
        out = f"{self.namespace}/{link.name}"
        if not link.up:
            yield f"link {out} is down"
            return
        solicitations = [
            item
            for item in self.trail
            if item.seen.destination == hop and item.seen.role is Role.SOLICITATION
        ]
        answered = (Role.ADVERTISEMENT, False) in _discovery(self.trail, self.namespace, hop)
        neighbours = rtnetlink_dump.neighbours(self.netlink)
        state = next((item.state for item in neighbours if item.address == hop), 0)
        if state & _UNRESOLVED or (solicitations and not answered):
            yield f"{UNANSWERED} {hop}, solicited at {out}{_reached(solicitations)}"
        if not link.carrier and link.kind == "bridge":
            yield f"no port of bridge {out} has carrier"
        elif not link.carrier:
            yield self._no_carrier(link)

    def _forwards(self, version: int, link: str) -> bool:
        key = _FORWARDING[version].format(link)
        with contextlib.suppress(OSError):
            return netns.read_sysctls(self.space, [key])[key].strip() != "0"
        return True


def _reached(solicitations: Sequence[Sighting]) -> str:
    seen = list(dict.fromkeys(item.where for item in solicitations if not item.outgoing))
    return f"; the solicitation was seen at {', '.join(seen[-3:])}" if seen else ""
