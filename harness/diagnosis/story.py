"""The story of a replayed probe: from sightings and rulings to a few lines of text (pure)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.diagnosis.packet_path import NftVerdict, PacketHeader, Role, Sighting
from harness.model.plan import ATTACKER, HOST, INTERNET, Cell, Observation, Outcome, Promise
from harness.model.topology import START_TTL

_IN_BETWEEN = re.compile(r"lan|r\d+")
_NETNS = re.compile(r"net:\[(\d+)\]")


_NO_RULE = ": no rule that is traced, so connection tracking, or the older iptables"
_MOST = 20
_COMING = frozenset({Outcome.REPLY, Outcome.NO_NAME})
"""Promises with which it is right that the packet arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTrace:
    """Everything that is known about a replayed probe.

    - `source` and `witness`: the namespaces where it begins and where it should end.
    - `behind`: the owner of the other end of each link of the host.
    - `inodes`: the owner of each namespace number.
    - `reasons`: the kernel's drop reasons. `causes`: reasons in the state of the last namespace.
    """

    cell: Cell
    promise: Promise | None
    observed: Observation
    source: str
    witness: str
    sightings: tuple[Sighting, ...] = ()
    rulings: tuple[NftVerdict, ...] = ()
    reasons: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    behind: Mapping[str, str] = field(default_factory=dict)
    inodes: Mapping[int, str] = field(default_factory=dict)

    def trail(self, *roles: Role) -> list[Sighting]:
        """Return the sightings in one of these roles, in order."""
        return [item for item in self.sightings if item.seen.role in roles]

    @property
    def arrived(self) -> bool:
        """Whether a listener received the request."""
        seen = self.observed
        if seen.outcome is Outcome.NO_NAME:
            return False
        return seen.seen_from is not None or bool(self.trail(Role.REPLY))


@dataclass(frozen=True, slots=True)
class LastSighting:
    """The end of the trail of request or reply: namespace and last sighting."""

    role: Role
    place: str
    last: Sighting | None
    packet: PacketHeader | None


def end(account: ProbeTrace) -> LastSighting | None:
    """Return the end of the trail, or `None` if the probe was complete."""
    if account.observed.outcome in (Outcome.REPLY, Outcome.WRONG_PEER):
        return None
    requests = account.trail(Role.REQUEST)
    if not account.arrived:
        last = _furthest(requests, account)
        place = last.place if last else account.source
        return LastSighting(Role.REQUEST, place, last, last.seen if last else None)
    replies = account.trail(Role.REPLY)
    last = replies[-1] if replies else None
    return LastSighting(
        Role.REPLY, last.place if last else account.witness, last, last.seen if last else None
    )


def _furthest(requests: Sequence[Sighting], account: ProbeTrace) -> Sighting | None:
    """Return the last sighting, without copies that a bridge flooded to other ports."""
    for item in reversed(requests):
        elsewhere = account.behind.get(item.where)
        if item.outgoing and elsewhere not in (None, account.witness):
            continue
        return item
    return requests[-1] if requests else None


def story(account: ProbeTrace) -> list[str]:
    """Return the lines: first the path, at the end where the trail ended and why."""
    now, promise = account.observed, account.promise
    if promise is not None and promise.admits(now):
        return [f"asked once more it was as promised: {now}", *_trails(account)]
    return [*_trails(account), *_verdict(account)]


# --- where it was seen -----------------------------------------------------------


def _trails(account: ProbeTrace) -> Iterator[str]:
    requests = account.trail(Role.REQUEST)
    if requests:
        yield f"request {_way(requests, account)}"
    else:
        yield f"the request never left {account.source}"
    replies = account.trail(Role.REPLY)
    if replies:
        yield f"reply {_way(replies, account)}"
    errors = account.trail(Role.ERROR)
    if errors:
        codes = ", ".join(dict.fromkeys(item.seen.code for item in errors))
        yield f"refusal ({codes}) {_way(errors, account)}"


def _way(trail: Sequence[Sighting], account: ProbeTrace) -> str:
    """Return the path.

    `172.17.0.2 → 203.0.113.10 udp: container01/eth0 (ttl 64), host/docker0; then …`.
    """
    parts = []
    for ends, group in itertools.groupby(trail, key=lambda item: _ends(item.seen)):
        places: list[str] = []
        ttl: int | None = None
        for item in group:
            told = f" (ttl {item.seen.ttl})" if item.seen.ttl != ttl else ""
            name = _shown(item, final=item is trail[-1]) + _behind(item, account)
            if places and told and places[-1] == name:
                places.pop()  # a router: the TTL of the outgoing packet is enough
            if not places or told or name not in places:
                places.append(name + told)
            ttl = item.seen.ttl
        parts.append(f"{ends}: {', '.join(_shortened(list(dict.fromkeys(places))))}")
    return "; then ".join(_shortened(parts))


def _shortened(items: list[str]) -> list[str]:
    """Return beginning and end of a long path, such as that of a packet in a loop."""
    if len(items) <= _MOST:
        return items
    half = _MOST // 2
    return [*items[:half], f"… {len(items) - 2 * half} more …", *items[-half:]]


def _shown(item: Sighting, *, final: bool) -> str:
    """Return the place of a sighting; for the world's switch and routers the name is enough."""
    return item.place if _IN_BETWEEN.fullmatch(item.place) and not final else item.where


def _ends(seen: PacketHeader) -> str:
    port = f" {seen.protocol}/{seen.destination_port}" if seen.destination_port else ""
    return f"{seen.source} → {seen.destination}{port or f' {seen.protocol}'}"


def _behind(item: Sighting, account: ProbeTrace) -> str:
    who = account.behind.get(item.where)
    return f" (to {who})" if who and item.outgoing else ""


# --- where it ended, and why ---------------------------------------------------------


def _verdict(account: ProbeTrace) -> Iterator[str]:
    now, promise = account.observed, account.promise
    if now.outcome is Outcome.WRONG_PEER:
        yield from _wrong_peer(account)
    elif promise is not None and account.arrived and promise.outcome not in _COMING:
        yield from _should_not_have(account)
    elif now.outcome is Outcome.REPLY:
        yield from _other_than_promised(account)
    else:
        yield from _ended(account)


def _wrong_peer(account: ProbeTrace) -> Iterator[str]:
    detail = _NETNS.sub(lambda found: _owner(account, int(found[1])), account.observed.detail)
    first = next((item for item in account.trail(Role.REPLY) if item.outgoing), None)
    who = f"{first.place}" if first else account.observed.seen_from or "somebody"
    yield f"answered by the wrong peer: {who}, where {account.witness} was meant ({detail})"
    yield from account.causes
    yield from _rewritten(account, Role.REQUEST)


def _owner(account: ProbeTrace, inode: int) -> str:
    return account.inodes.get(inode, f"net:[{inode}]")


def _should_not_have(account: ProbeTrace) -> Iterator[str]:
    way = list(dict.fromkeys(item.place for item in account.trail(Role.REQUEST)))
    by = " → ".join(way) or account.source
    links = [item.where for item in account.trail(Role.REQUEST) if item.place == "host"]
    through = f", in the host by {', '.join(dict.fromkeys(links))}" if links else ""
    yield f"it should not have arrived, and came by {by}{through}; no rule on the way stopped it"
    yield from _rewritten(account, Role.REQUEST)


def _other_than_promised(account: ProbeTrace) -> Iterator[str]:
    now, promise = account.observed, account.promise
    if promise is None:
        return
    if promise.seen_from not in (None, now.seen_from):
        yield from _seen_as_another(account)
    for role, ttl in ((Role.REQUEST, now.seen_ttl), (Role.REPLY, now.ttl)):
        if None not in (ttl, promise.ttl) and ttl != promise.ttl:
            changes = ", ".join(_shortened(list(_ttl_changes(account.trail(role)))))
            yield f"the TTL of the {role} is not {promise.ttl}: {changes or 'nobody changed it'}"


def _seen_as_another(account: ProbeTrace) -> Iterator[str]:
    promise, now = account.promise, account.observed
    assert promise is not None
    changed = list(_rewritten(account, Role.REQUEST))
    requests = account.trail(Role.REQUEST)
    sources = list(dict.fromkeys(item.seen.source for item in requests))
    if len(sources) == 1 and promise.seen_from == HOST != account.source:
        yield f"masquerade did not apply: source stayed {sources[0]}"
    elif len(sources) == 1:
        yield f"{sources[0]} is {now.seen_from}'s, where {promise.seen_from}'s was promised"
        yield from account.causes
    else:
        yield f"it was seen as {now.seen_from}, where {promise.seen_from} was promised"
    yield from changed


def _rewritten(account: ProbeTrace, role: Role) -> Iterator[str]:
    """Return each place that changed an address or a port."""
    told: set[str] = set()
    for before, after in itertools.pairwise(account.trail(role)):
        for side in ("source", "destination"):
            was, now = _socket(before.seen, side), _socket(after.seen, side)
            if was != now and before.seen.protocol == after.seen.protocol:
                said = f"{side} rewritten in {before.place}: {was} → {now}"
                if said not in told:
                    yield said
                told.add(said)


def _socket(seen: PacketHeader, side: str) -> str:
    port = getattr(seen, f"{side}_port")
    address = getattr(seen, side)
    return f"{address} port {port}" if port else str(address)


def _ttl_changes(trail: Sequence[Sighting]) -> Iterator[str]:
    """Return the places that decremented the TTL, as a router does, or rewrote it."""
    if trail and trail[0].seen.ttl not in (None, START_TTL):
        yield f"sent with {trail[0].seen.ttl} by {trail[0].place}"
    for before, after in itertools.pairwise(trail):
        was, now = before.seen.ttl, after.seen.ttl
        if was is None or now is None or was == now:
            continue
        between = f"between {before.where} and {after.where}" if before.where != after.where else ""
        if now == was - 1 and before.place == after.place:
            yield f"forwarded by {before.place} ({was} → {now})"
        else:
            yield f"rewritten in {before.place} {between} ({was} → {now})".replace("  ", " ")


def _ended(account: ProbeTrace) -> Iterator[str]:
    found = end(account)
    if found is None:
        return
    rewritten = _rewritten(account, Role.REQUEST)
    amiss = [line for line in rewritten if line.startswith("destination")]
    amiss += _untranslated(account)
    stopped = list(_stopped(account, found, {found.role, Role.ERROR}))
    unasked = list(_stopped(account, found, {Role.ASKED, Role.TOLD}))
    yield from (*amiss, *stopped, *unasked)
    if account.observed.outcome is Outcome.REJECTED and not stopped:
        yield from _refuser(account)
    yield from _lost(account, found)
    yield from _astray(account, found)
    if stopped:
        return
    yield from account.causes
    for reason in account.reasons:
        untold = reason.startswith("NETFILTER_DROP") and not unasked
        yield f"the kernel says {reason}" + (_NO_RULE if untold else "")
    explained = (*amiss, *unasked, *account.causes, *account.reasons)
    if not explained and account.observed.outcome is not Outcome.REJECTED:
        yield f"nothing in {found.place} says why"


def _lost(account: ProbeTrace, found: LastSighting) -> Iterator[str]:
    what = found.role.value
    if found.role is Role.REPLY:
        if found.last is None:
            yield f"the request arrived at {account.witness}, and no reply left it"
        else:
            yield f"the reply was seen at {found.last.where}, never at {account.source}"
    elif found.last is not None:
        leaving = "left by" if found.last.outgoing else "was last seen at"
        yield f"the {what} {leaving} {found.last.where} and ended in {found.place}"
    else:
        yield f"it ended in {found.place} before any interface"


def _astray(account: ProbeTrace, found: LastSighting) -> Iterator[str]:
    """Return a line if the host sent a packet between its own containers to the routers."""
    outside = {INTERNET, ATTACKER}
    beyond = found.place in outside or _IN_BETWEEN.fullmatch(found.place)
    if not beyond or outside & {account.source, account.witness}:
        return
    leaving = [item for item in account.trail(found.role) if item.place == HOST and item.outgoing]
    if leaving:
        yield f"it went astray in host, which sent it out by {leaving[-1].where}"


def _stopped(account: ProbeTrace, found: LastSighting, roles: Collection[Role]) -> Iterator[str]:
    """Return the rules that dropped a packet in one of these roles."""
    told = []
    for ruling in account.rulings:
        role = ruling.seen.role if ruling.seen is not None else found.role
        if role in roles:
            how = "rejected" if ruling.rejects else "dropped"
            told.append(f"{how} in {ruling.place}, {ruling.rule}")
    yield from dict.fromkeys(told)


def _refuser(account: ProbeTrace) -> Iterator[str]:
    first = next(iter(account.trail(Role.ERROR)), None)
    code = account.observed.code
    if first is None:
        yield f"{account.source} itself refused it ({code})"
        return
    who = first.place if first.outgoing else account.behind.get(first.where, first.place)
    yield f"{who} refused it ({code}), as {first.seen.source}"


def _untranslated(account: ProbeTrace) -> Iterator[str]:
    """Return a line if no reply can arrive since the request had a private source."""
    promise = account.promise
    if promise is None or promise.seen_from != HOST or account.source == HOST:
        return
    if not account.arrived:
        return
    if account.observed.seen_from == promise.seen_from:
        return
    sources = list(dict.fromkeys(item.seen.source for item in account.trail(Role.REQUEST)))
    if len(sources) == 1:
        yield f"masquerade did not apply: source stayed {sources[0]}"


def as_text(lines: Sequence[str]) -> str:
    """Return the lines as the text of a file."""
    return "".join(f"{line}\n" for line in lines)
