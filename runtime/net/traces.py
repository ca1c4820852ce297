"""What the host's kernel remembers of an address: forgotten before somebody else gets it.

A flow that conntrack knows would go on under the old translation, and a neighbour entry
sends to the old MAC until it is found stale.
"""

from __future__ import annotations

from collections.abc import Collection

from linux import netstate, rtnl
from linux.conntrack import Conntrack
from linux.netlink import Netlink, NetlinkError
from runtime.records import Address


def forget(addresses: Collection[Address]) -> None:
    """Drop the neighbours and flows of addresses that nobody has any more.

    A kernel without ctnetlink is left to let its flows time out.
    """
    if not addresses:
        return
    with Netlink() as host:
        known = [item for item in netstate.neighbours(host) if item.address in addresses]
        requests = [rtnl.del_neighbour(item.ifindex, item.address) for item in known]
        host.send(requests, missing_ok=True)
    with Conntrack() as conntrack:
        try:
            flows = conntrack.all() if conntrack.count() else []
        except NetlinkError:
            return
        conntrack.forget(flow for flow in flows if not flow.addresses.isdisjoint(addresses))
