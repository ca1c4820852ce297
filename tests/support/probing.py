"""Probes between network namespaces that a test has made, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from harness.model.plan import Cell, Family, Observation, Protocol
from harness.probe.prober import observe
from harness.probe.quiescence import Quiet
from harness.probe.reception import ProbeRequest
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS


def probe(
    source: NetNS, address: str, target: NetNS, protocol: Protocol = Protocol.ICMP, number: int = 0
) -> ProbeRequest:
    """Return a probe from `source` to `address` of `target`.

    Probes with different `number` have different cells.
    """
    to = ip_address(address)
    family: Family = 4 if to.version == 4 else 6
    return ProbeRequest(Cell("source", f"target-{number}", protocol, family), source, to, target)


def observe_all(
    requests: Sequence[ProbeRequest], *, through: Sequence[NetNS] = (), patience: float = 0.0
) -> list[Observation]:
    """Return the outcome of each probe, in order.

    `through` are the namespaces that the packets cross.
    """
    spaces = {space.id: space for item in requests for space in (item.source, item.target)}
    with control() as lo:
        found = observe(
            requests,
            control=lo,
            watched=[*spaces.values(), *through],
            namer=lambda seen, _: str(seen),
            patience=patience,
        )
    return [found[item.cell] for item in requests]


def observe_one(
    source: NetNS,
    address: str,
    target: NetNS,
    *,
    protocol: Protocol = Protocol.ICMP,
    through: Sequence[NetNS] = (),
) -> Observation:
    """Return the outcome of one probe."""
    return observe_all([probe(source, address, target, protocol)], through=through)[0]


def control() -> NetNS:
    """Make a netns in which `lo` is up and no process sends, for control packets of `Quiet`."""
    made = NetNS.new()
    with Netlink(made) as netlink:
        netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)])
    return made


def settle(*spaces: NetNS) -> None:
    """Wait until no packet is in transit in these namespaces."""
    with control() as lo, Quiet(lo, spaces) as quiet:
        quiet.wait()
