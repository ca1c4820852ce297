"""Questions for small worlds: what becomes of a packet between namespaces made by a test."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from harness.model import Cell, Observation, Protocol
from harness.probe.ledger import Question
from harness.probe.netns import observe
from harness.probe.settle import Quiet
from linux import rtnl
from linux.netlink import Netlink
from linux.netns import NetNS


def ask(
    source: NetNS,
    address: str,
    target: NetNS,
    *,
    protocol: Protocol = Protocol.ICMP,
    through: Sequence[NetNS] = (),
) -> Observation:
    """What a packet from `source` to `address` meets, when `target` should answer."""
    to = ip_address(address)
    cell = Cell("source", "target", protocol, 4 if to.version == 4 else 6)
    with control() as lo:
        return observe(
            [Question(cell, source, to, target)],
            control=lo,
            watched=[source, target, *through],
            namer=lambda seen, _: str(seen),
        )[cell]


def control() -> NetNS:
    """A namespace in which `lo` is up and nobody does anything: what `Quiet` needs."""
    made = NetNS.new()
    with Netlink(made) as netlink:
        netlink.send([rtnl.set_link(rtnl.LO, up=True)])
    return made


def settle(*spaces: NetNS) -> None:
    """Return when nothing is under way any more in the namespaces."""
    with control() as lo, Quiet(lo, spaces) as quiet:
        while not quiet.reached():
            pass
