"""What the host's kernel remembers of an address: forgotten before somebody else gets it.

A flow that conntrack knows would go on under the old translation, and a neighbour entry
sends to the old MAC until it is found stale.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from linux import netstate, rtnl
from linux.conntrack import Conntrack, Flow, by_protocol
from linux.netlink import Netlink, NetlinkError
from runtime.records import Address

if TYPE_CHECKING:  # for those who remove many
    from linux.flowwatch import FlowWatch

_IGMP: Final = 2


def marked(flows: FlowWatch | None, *marks: bytes) -> list[Flow]:
    """As `Conntrack.marked` here, by who has heard of the flows, if anybody has."""
    if flows is not None:
        return flows.marked(*marks)
    with Conntrack() as conntrack:
        return conntrack.marked(*marks)


def drop(flows: Collection[Flow]) -> None:
    """Have the kernel forget flows."""
    if flows:
        with Conntrack() as conntrack:
            conntrack.forget(flows)


def forget(addresses: Collection[Address], flows: FlowWatch | None = None) -> None:
    """Drop the neighbours and flows of addresses that nobody has any more.

    A kernel without ctnetlink is left to let its flows time out. Reports about groups
    (IGMP) are forgotten along with them: nothing hangs on those, and they alone would
    have the kernel's whole table walked at each call for ten minutes.
    """
    if not addresses:
        return
    with Netlink() as host:
        known = [item for item in netstate.neighbours(host) if item.address in addresses]
        requests = [rtnl.del_neighbour(item.ifindex, item.address) for item in known]
        host.send(requests, missing_ok=True)
    marks = (by_protocol(_IGMP), *(item.packed for item in addresses))
    try:
        found = marked(flows, *marks)
    except NetlinkError:
        return
    drop(
        [
            flow
            for flow in found
            if flow.original.protocol == _IGMP or not flow.addresses.isdisjoint(addresses)
        ]
    )
