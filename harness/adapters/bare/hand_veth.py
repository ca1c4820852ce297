"""Containers plugged into bridges by hand, for a runtime that joins whatever namespace it is given.

What an operator without CNI does with `ip`: a network namespace, a veth pair with one end in
it and the other a port of the bridge, addresses, default routes, and no ear for routers, which
whoever is on the bridge may say he is one of. Addresses are given out one by one: nobody waits a
second to learn whether another has them. The runtime is told the path of that namespace, and starts
its process there. All of it runs inside the host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from harness.adapters.bare import bundle, store
from harness.adapters.bare.linux_bridge import LinuxBridge
from harness.adapters.bare.protocol import WiredNetns
from harness.adapters.bare.store import BareRecord
from harness.adapters.protocol import Endpoint
from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink, Request
from linux.netns import NetNS
from linux.readiness import await_ready

_OFF: Final = ("accept_ra", "accept_dad")


@dataclass(frozen=True, slots=True)
class VethByHand(LinuxBridge):
    """The bridges of `LinuxBridge`, and containers that are plugged into them."""

    def wire(self, record: BareRecord) -> WiredNetns:
        """A namespace that is new, with `lo` up and an interface on each network."""
        leased = LinuxBridge.wire(self, record).endpoints
        bridges = [self.link(endpoint.network) for endpoint in leased]
        with NetNS.own() as here, NetNS.new() as space:
            path = bundle.hold(store.bundle(record.spec.name), space.fd)
            with Netlink(here) as outside:
                found = [rtnetlink_dump.link(outside, bridge) for bridge in bridges]
                outside.send(
                    request
                    for number, (bridge, endpoint) in enumerate(zip(found, leased, strict=True))
                    for request in _pair(_end(record, number), number, bridge, space, endpoint)
                )
            with Netlink(space) as inside:
                links = [
                    rtnetlink_dump.link(inside, f"eth{number}") for number in range(len(leased))
                ]
                for link in links:
                    netns.write_sysctls(
                        space, {f"net.ipv6.conf.{link.name}.{key}": 0 for key in _OFF}
                    )
                inside.send(_furnishing(links, leased))
            await_ready([space, here])
        own = zip(leased, links, strict=True)
        return WiredNetns(tuple(replace(item, mac=link.mac) for item, link in own), str(path))

    def unwire(self, record: BareRecord) -> None:
        """The pairs go, whoever else may be in that namespace; then it, and the addresses."""
        ends = [rtnetlink.del_link(_end(record, number)) for number in range(len(record.attached))]
        with NetNS.own() as here, Netlink(here) as netlink:
            netlink.send(ends, missing_ok=True)
        bundle.release(store.bundle(record.spec.name))
        LinuxBridge.unwire(self, record)


def _pair(
    end: str, number: int, bridge: rtnetlink_dump.Link, space: NetNS, endpoint: Endpoint
) -> Iterator[Request]:
    yield rtnetlink.add_veth(
        end,
        f"eth{number}",
        master=bridge.ifindex,
        mtu=bridge.mtu,
        peer_netns=space.fd,
        peer_mac=endpoint.mac,
    )
    yield rtnetlink.no_link_local(end)


def _furnishing(links: Sequence[rtnetlink_dump.Link], own: Sequence[Endpoint]) -> Iterator[Request]:
    yield rtnetlink.set_link(rtnetlink.LO, up=True)
    for link, endpoint in zip(links, own, strict=True):
        yield rtnetlink.set_link(link.ifindex, up=True)
        for address in (endpoint.address, endpoint.address6):
            if address is not None:
                yield rtnetlink.add_address(link.ifindex, address)
        for gateway in (endpoint.gateway, endpoint.gateway6):
            if gateway is not None:
                yield rtnetlink.add_route(None, via=ip_address(gateway))


def _end(record: BareRecord, number: int) -> str:
    """The host's end of an interface: no other container ever has one that is called so."""
    digest = hashlib.sha256(f"{record.spec.name}-{record.serial}".encode()).hexdigest()
    return f"veth{digest[:8]}-{number}"
