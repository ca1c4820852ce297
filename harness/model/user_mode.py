"""Promises for containers behind a user-space process, as source and as target (pure).

The process sends the requests of a tap anew from a socket of the host, so targets see the host's
address. No route leads to a tap. A packet for pasta's address, which is the host's, ends at the
nearest owner of that address. A packet for slirp4netns' address ends at its nearest owner, or on
the route of private addresses. Over IPv6 slirp4netns advertises a prefix, from which each
container derives its own address.
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
    """Return the promise, or `None` if neither end is behind a tap or both are behind the same.

    `to_host` is the number of routers between the source and the host.
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
        # Datagrams keep their TTL for traceroute; libslirp decrements it as a router does.
        routers += bool(source.network) + (tap == "slirp4netns")
    return Promise(
        Outcome.REPLY,
        seen_ttl=START_TTL - routers,
        seen_from=HOST,
        requirement="UM-3" if target.name == HOST else "UM-2",
        why=f"{tap} asks in its place, from the host",
    )


def _nowhere() -> Promise:
    """Promise a reject, rate-limited, by the netns with the bridges: it has no IPv6 route."""
    return Promise(
        Outcome.REJECTED,
        codes=frozenset({"net-unreachable"}),
        limited=True,
        requirement="UM-6",
        why="IPv6 is declared to end where the bridges are",
    )


def _tap(dialect: Dialect, place: Attachment) -> str:
    """Return the tap of a place: its own, or that of the netns with the bridges."""
    if place.network and dialect.bridges != "host":
        return dialect.bridges
    return place.tap


def _mistaken(source: Attachment, answers: str, routers: int, requirement: str) -> Promise:
    """Promise a reply from a nearer owner of the same address."""
    return Promise(
        Outcome.WRONG_PEER,
        ttl=START_TTL - routers,
        seen_from=source.name,
        requirement=requirement,
        why=f"{answers} has that address too",
    )
