"""The explanation of a replayed probe in a few lines, from sightings and verdicts (pure)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence

from harness.diagnosis.packet_path import (
    LossPoint,
    PacketHeader,
    ProbeTrace,
    Role,
    Sighting,
    loss_point,
)
from harness.model.plan import ATTACKER, HOST, INTERNET, Outcome
from harness.model.topology import START_TTL

_IN_BETWEEN = re.compile(r"lan|r\d+")
_NETNS = re.compile(r"net:\[(\d+)\]")
_NO_RULE = ": no traced rule, so probably connection tracking or legacy iptables"
_MOST = 20
_ARRIVAL = frozenset({Outcome.REPLY, Outcome.NO_NAME})
"""Promised outcomes that let the request arrive."""


def story(trace: ProbeTrace) -> list[str]:
    """Return the explanation line by line: first the path, then place and cause of the loss."""
    now, promise = trace.observed, trace.promise
    if promise is not None and promise.admits(now):
        return [f"the replay was as promised: {now}", *_trails(trace)]
    return [*_trails(trace), *_verdict(trace)]


# --- the path -----------------------------------------------------------


def _trails(trace: ProbeTrace) -> Iterator[str]:
    requests = trace.trail(Role.REQUEST)
    if requests:
        yield f"request {_path(requests, trace)}"
    else:
        yield f"the request never left {trace.source}"
    replies = trace.trail(Role.REPLY)
    if replies:
        yield f"reply {_path(replies, trace)}"
    errors = trace.trail(Role.ERROR)
    if errors:
        codes = ", ".join(dict.fromkeys(item.seen.code for item in errors))
        yield f"reject ({codes}) {_path(errors, trace)}"


def _path(trail: Sequence[Sighting], trace: ProbeTrace) -> str:
    """Return the path of a packet as text.

    Example: `172.17.0.2 → 203.0.113.10 udp: container01/eth0 (ttl 64), host/docker0; then …`.
    """
    parts = []
    for ends, group in itertools.groupby(trail, key=lambda item: _ends(item.seen)):
        namespaces: list[str] = []
        ttl: int | None = None
        for item in group:
            ttl_note = f" (ttl {item.seen.ttl})" if item.seen.ttl != ttl else ""
            name = _location(item, final=item is trail[-1]) + _behind(item, trace)
            if namespaces and ttl_note and namespaces[-1] == name:
                namespaces.pop()  # a router: the TTL of the outgoing packet is enough
            if not namespaces or ttl_note or name not in namespaces:
                namespaces.append(name + ttl_note)
            ttl = item.seen.ttl
        parts.append(f"{ends}: {', '.join(_shortened(list(dict.fromkeys(namespaces))))}")
    return "; then ".join(_shortened(parts))


def _shortened(items: list[str]) -> list[str]:
    """Return the beginning and the end of a long path, such as the path of a packet in a loop."""
    if len(items) <= _MOST:
        return items
    half = _MOST // 2
    return [*items[:half], f"… {len(items) - 2 * half} more …", *items[-half:]]


def _location(item: Sighting, *, final: bool) -> str:
    """Return namespace and interface of a sighting.

    The namespace alone is enough for the world's switch and routers, unless the path ends there.
    """
    return item.namespace if _IN_BETWEEN.fullmatch(item.namespace) and not final else item.where


def _ends(seen: PacketHeader) -> str:
    port = f" {seen.protocol}/{seen.destination_port}" if seen.destination_port else ""
    return f"{seen.source} → {seen.destination}{port or f' {seen.protocol}'}"


def _behind(item: Sighting, trace: ProbeTrace) -> str:
    who = trace.behind.get(item.where)
    return f" (to {who})" if who and item.outgoing else ""


# --- the cause ---------------------------------------------------------


def _verdict(trace: ProbeTrace) -> Iterator[str]:
    now, promise = trace.observed, trace.promise
    if now.outcome is Outcome.WRONG_PEER:
        yield from _wrong_peer(trace)
    elif promise is not None and trace.arrived and promise.outcome not in _ARRIVAL:
        yield from _should_not_have(trace)
    elif now.outcome is Outcome.REPLY:
        yield from _other_than_promised(trace)
    else:
        yield from _ended(trace)


def _wrong_peer(trace: ProbeTrace) -> Iterator[str]:
    detail = _NETNS.sub(lambda found: _owner(trace, int(found[1])), trace.observed.detail)
    first = next((item for item in trace.trail(Role.REPLY) if item.outgoing), None)
    who = first.namespace if first else trace.observed.seen_from or "an unknown sender"
    yield f"the reply came from the wrong peer: {who} instead of {trace.witness} ({detail})"
    yield from trace.causes
    yield from _rewritten(trace, Role.REQUEST)


def _owner(trace: ProbeTrace, inode: int) -> str:
    return trace.inodes.get(inode, f"net:[{inode}]")


def _should_not_have(trace: ProbeTrace) -> Iterator[str]:
    way = list(dict.fromkeys(item.namespace for item in trace.trail(Role.REQUEST)))
    by = " → ".join(way) or trace.source
    links = [item.where for item in trace.trail(Role.REQUEST) if item.namespace == "host"]
    through = f", through {', '.join(dict.fromkeys(links))}" if links else ""
    yield f"the request arrived, against the promise, by {by}{through}; no rule dropped it"
    yield from _rewritten(trace, Role.REQUEST)


def _other_than_promised(trace: ProbeTrace) -> Iterator[str]:
    now, promise = trace.observed, trace.promise
    if promise is None:
        return
    if promise.seen_from not in (None, now.seen_from):
        yield from _seen_as_another(trace)
    for role, ttl in ((Role.REQUEST, now.seen_ttl), (Role.REPLY, now.ttl)):
        if None not in (ttl, promise.ttl) and ttl != promise.ttl:
            changes = ", ".join(_shortened(list(_ttl_changes(trace.trail(role)))))
            yield f"the TTL of the {role} is not {promise.ttl}: {changes or 'no hop changed it'}"


def _seen_as_another(trace: ProbeTrace) -> Iterator[str]:
    promise, now = trace.promise, trace.observed
    assert promise is not None
    changed = list(_rewritten(trace, Role.REQUEST))
    requests = trace.trail(Role.REQUEST)
    sources = list(dict.fromkeys(item.seen.source for item in requests))
    if len(sources) == 1 and promise.seen_from == HOST != trace.source:
        yield f"the host did not masquerade the source {sources[0]}"
    elif len(sources) == 1:
        yield f"the source {sources[0]} belongs to {now.seen_from}, not to {promise.seen_from}"
        yield from trace.causes
    else:
        yield f"the target saw {now.seen_from} as sender instead of {promise.seen_from}"
    yield from changed


def _rewritten(trace: ProbeTrace, role: Role) -> Iterator[str]:
    """Yield a line for each namespace that rewrote an address or a port of the packet."""
    known: set[str] = set()
    for before, after in itertools.pairwise(trace.trail(role)):
        for side in ("source", "destination"):
            was, now = _socket(before.seen, side), _socket(after.seen, side)
            if was != now and before.seen.protocol == after.seen.protocol:
                line = f"{side} rewritten in {before.namespace}: {was} → {now}"
                if line not in known:
                    yield line
                known.add(line)


def _socket(seen: PacketHeader, side: str) -> str:
    port = getattr(seen, f"{side}_port")
    address = getattr(seen, side)
    return f"{address} port {port}" if port else str(address)


def _ttl_changes(trail: Sequence[Sighting]) -> Iterator[str]:
    """Yield a clause for each namespace that decremented or rewrote the TTL."""
    if trail and trail[0].seen.ttl not in (None, START_TTL):
        yield f"sent with {trail[0].seen.ttl} by {trail[0].namespace}"
    for before, after in itertools.pairwise(trail):
        was, now = before.seen.ttl, after.seen.ttl
        if was is None or now is None or was == now:
            continue
        between = f"between {before.where} and {after.where}" if before.where != after.where else ""
        if now == was - 1 and before.namespace == after.namespace:
            yield f"forwarded by {before.namespace} ({was} → {now})"
        else:
            yield f"rewritten in {before.namespace} {between} ({was} → {now})".replace("  ", " ")


def _ended(trace: ProbeTrace) -> Iterator[str]:
    found = loss_point(trace)
    if found is None:
        return
    rewritten = _rewritten(trace, Role.REQUEST)
    rewrites = [line for line in rewritten if line.startswith("destination")]
    rewrites += _untranslated(trace)
    stopped = list(_stopped(trace, found, {found.role, Role.ERROR}))
    neighbours = list(_stopped(trace, found, {Role.SOLICITATION, Role.ADVERTISEMENT}))
    yield from (*rewrites, *stopped, *neighbours)
    if trace.observed.outcome is Outcome.REJECTED and not stopped:
        yield from _refuser(trace)
    yield from _lost(trace, found)
    yield from _astray(trace, found)
    if stopped:
        return
    yield from trace.causes
    for reason in trace.reasons:
        unexplained = reason.startswith("NETFILTER_DROP") and not neighbours
        yield f"the kernel's drop reason is {reason}" + (_NO_RULE if unexplained else "")
    explained = (*rewrites, *neighbours, *trace.causes, *trace.reasons)
    if not explained and trace.observed.outcome is not Outcome.REJECTED:
        yield f"the state of {found.namespace} shows no cause"


def _lost(trace: ProbeTrace, found: LossPoint) -> Iterator[str]:
    what = found.role.value
    if found.role is Role.REPLY:
        if found.last is None:
            yield f"the request arrived at {trace.witness}, but {trace.witness} sent no reply"
        else:
            yield f"the reply was last seen at {found.last.where} and never reached {trace.source}"
    elif found.last is not None:
        leaving = "left through" if found.last.outgoing else "was last seen at"
        yield f"the {what} {leaving} {found.last.where} and was lost in {found.namespace}"
    else:
        yield f"the {what} was lost in {found.namespace} before it reached an interface"


def _astray(trace: ProbeTrace, found: LossPoint) -> Iterator[str]:
    """Yield a line if the host sent a packet between its own containers out to the LAN."""
    outside = {INTERNET, ATTACKER}
    beyond = found.namespace in outside or _IN_BETWEEN.fullmatch(found.namespace)
    if not beyond or outside & {trace.source, trace.witness}:
        return
    leaving = [item for item in trace.trail(found.role) if item.namespace == HOST and item.outgoing]
    if leaving:
        out = leaving[-1].where
        yield f"the host sent the {found.role.value} out of the wrong interface, {out}"


def _stopped(trace: ProbeTrace, found: LossPoint, roles: Collection[Role]) -> Iterator[str]:
    """Yield a line for each rule that dropped or rejected a packet in one of these roles."""
    lines = []
    for verdict in trace.verdicts:
        role = verdict.seen.role if verdict.seen is not None else found.role
        if role in roles:
            how = "rejected" if verdict.rejects else "dropped"
            lines.append(f"{how} in {verdict.namespace}, {verdict.rule}")
    yield from dict.fromkeys(lines)


def _refuser(trace: ProbeTrace) -> Iterator[str]:
    first = next(iter(trace.trail(Role.ERROR)), None)
    code = trace.observed.code
    if first is None:
        yield f"{trace.source} itself rejected it ({code})"
        return
    who = first.namespace if first.outgoing else trace.behind.get(first.where, first.namespace)
    yield f"{who} rejected it ({code}), from {first.seen.source}"


def _untranslated(trace: ProbeTrace) -> Iterator[str]:
    """Yield a line if the request kept its private source address, so that no reply can arrive."""
    promise = trace.promise
    if promise is None or promise.seen_from != HOST or trace.source == HOST:
        return
    if not trace.arrived:
        return
    if trace.observed.seen_from == promise.seen_from:
        return
    sources = list(dict.fromkeys(item.seen.source for item in trace.trail(Role.REQUEST)))
    if len(sources) == 1:
        yield f"the host did not masquerade the source {sources[0]}"
