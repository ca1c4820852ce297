"""What is promised of who is behind a process in user space, and of who asks for them (pure).

What leaves by a tap is asked by the host itself, by a socket: seen as the host's, and anew.
Nothing leads to a tap: a packet for pasta's address, the host's, ends where it is had, and
one for slirp4netns' where it is had, or on the way that private addresses go. Over IPv6
slirp4netns advertises a prefix, of which each makes an address of its own.
https://passt.top/passt/about/, https://github.com/rootless-containers/slirp4netns
"""

from __future__ import annotations

from harness.model.attachments import Attachment
from harness.model.dialect import Dialect
from harness.model.plan import BR0, GATEWAY, HOST, INTERNET, Cell, Outcome, Promise, Protocol
from harness.model.topology import START_TTL, Topology


def promise(
    cell: Cell,
    source: Attachment,
    target: Attachment,
    *,
    dialect: Dialect,
    topology: Topology,
    to_host: int,
) -> Promise | None:
    """The promise, or `None` where neither end is behind a tap, or both are behind the same.

    `to_host` is how many routers there are between the source and the host.
    """
    tap, other = _tap(dialect, source), _tap(dialect, target)
    apart = not (source.network and target.network) and cell.target != GATEWAY
    if source == target or not (tap or other) or not apart:
        return None
    if cell.family == 6 and source.network and dialect.beyond6 == "unreachable":
        return _nowhere()
    alike = tap and target.tap == tap and (tap == "pasta" or cell.family == 4)
    if alike or (tap == "pasta" and target.name == HOST and cell.target != BR0):
        return _mistaken(source, source.name, 0, "UM-4" if target.tap else "UM-3")
    if target.tap == "pasta":
        return _mistaken(source, HOST, to_host, "UM-4")
    if other:
        return Promise(Outcome.DROPPED, requirement="UM-4", why="no route leads to a tap")
    routers = topology.routers if target.name == INTERNET else 0
    if cell.protocol is Protocol.UDP:
        # A datagram's TTL goes on, that traceroute may work; libslirp takes one as routers do.
        routers += bool(source.network) + (tap == "slirp4netns")
    return Promise(
        Outcome.REPLY,
        seen_ttl=START_TTL - routers,
        seen_from=HOST,
        requirement="UM-3" if target.name == HOST else "UM-2",
        why=f"{tap} asks in its place, from the host",
    )


def _nowhere() -> Promise:
    """The namespace that has the bridges knows no way; its kernel says so, now and then."""
    return Promise(
        Outcome.REJECTED,
        codes=frozenset({"net-unreachable"}),
        limited=True,
        requirement="UM-6",
        why="IPv6 is declared to end where the bridges are",
    )


def _tap(dialect: Dialect, place: Attachment) -> str:
    """What somebody is behind: a tap of its own, or that of the namespace with the bridges."""
    if place.network and dialect.bridges != "host":
        return dialect.bridges
    return place.tap


def _mistaken(source: Attachment, answers: str, routers: int, requirement: str) -> Promise:
    """Somebody else has the same address, nearer to who asks, and answers."""
    return Promise(
        Outcome.WRONG_PEER,
        ttl=START_TTL - routers,
        seen_from=source.name,
        requirement=requirement,
        why=f"{answers} has that address too",
    )
