"""What a network stack of one's own shows of itself, in the words that the kernel has for it.

Its rtnetlink tells less than Linux's: nothing of cables, which are the host's, and of one
table for all routes, whatever family is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeGuard

from harness.probe.remote import Inside
from harness.probe.settle import QUIET_BOUND, NeverQuiet
from linux import netstate, rtnl
from linux import sysctl as sysctls
from linux.netlink import Netlink
from linux.netns import NetNS

PATIENCE: Final = 0.3
"""Seconds that a packet may spend in a stack that cannot be looked into, at least."""
_SLOWER: Final = 3
"""How many times longer than the slowest thing that an agent did there in the same matrix."""


def patience(spaces: Iterable[NetNS]) -> float:
    """How long it has to be silent in them until silence is final, in seconds."""
    agents = [space.agent for space in spaces if has(space)]
    return max(PATIENCE, *(_SLOWER * agent.slowest for agent in agents)) if agents else 0.0


def outwait(seconds: float, unanswered: Callable[[], bool], pump: Callable[[float], bool]) -> None:
    """Wait for what cannot be looked into: it is silent when nothing has come for so long.

    `pump` takes in what comes within some seconds and tells whether anything did. Raises
    `NeverQuiet` where answers keep coming.
    """
    bound = time.monotonic() + QUIET_BOUND + seconds
    deadline = time.monotonic() + seconds
    while unanswered() and (left := deadline - time.monotonic()) > 0:
        if pump(left):
            deadline = time.monotonic() + seconds
        if deadline > bound:
            raise NeverQuiet(
                f"answers still come {QUIET_BOUND:g} s after the kernel has come to rest: "
                "this machine is too busy for a verdict; run with fewer workers"
            )


def has(space: NetNS) -> TypeGuard[Inside]:
    """Whether what is behind a handle is a container with a stack of its own."""
    return isinstance(space, Inside) and space.own_stack


def with_cables(links: Mapping[str, netstate.Link], space: Inside) -> dict[str, netstate.Link]:
    """Its links, and of each what is at the host's side of it: kind, carrier, and the other end."""
    with space.outside() as outside, Netlink(outside) as netlink:
        cables = {link.name: link for link in netstate.links(netlink)}
    return {
        name: link._replace(
            kind=cable.kind, carrier=cable.carrier, peer=cable.peer, peer_nsid=cable.peer_nsid
        )
        if (cable := cables.get(name))
        else link
        for name, link in links.items()
    }


def of_main_table(routes: Sequence[netstate.Route]) -> list[netstate.Route]:
    """The routes that Linux would have in its main table: those of `lo` are in another there."""
    return [route for route in routes if route.oif != rtnl.LO and _version(route) == route.family]


def _version(route: netstate.Route) -> int:
    for item in (route.destination, route.via):
        if item is not None:
            return item.version
    return route.family


def sysctl(space: Inside, key: str) -> str:
    """A sysctl as a process inside reads it."""
    content: bytes = space.agent.do(["load", sysctls.path(key)])[0]
    return " ".join(content.decode().split())
