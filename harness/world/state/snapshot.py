"""Snapshots of a network namespace's kernel state, for comparison before and after a change.

A snapshot has links, addresses, routes of every table, policy rules, manually added neighbours, nft
rules and the sysctls under `net.`. Each object has its usual name.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.world.state.describe import Thing, names, still, things
from harness.world.state.netlink_dump import Dumps, Raw
from linux.netns import NetNS
from linux.readiness import await_ready

Facts = dict[str, dict[str, str]]
"""Facts of each object, by its name: `link eth0` → {`mtu`: …}."""
NEW = "new"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one namespace at one moment."""

    facts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, netns: NetNS, dumps: Dumps | None = None) -> Snapshot:
        """Take a snapshot of a namespace once none of its addresses is tentative.

        `dumps` are the open sockets and files of the namespace, if the caller keeps them.
        """
        with contextlib.ExitStack() as stack:
            await_ready([netns])
            raw = (dumps or stack.enter_context(Dumps(netns, once=True))).take()
        return cls(gathered(things(raw, names(raw))))

    def changes(self, later: Snapshot) -> list[str]:
        """Return the differences from this snapshot to a later one, one line for each object."""
        return [str(change) for change in changes(self.facts, later.facts)]


class StateChange(NamedTuple):
    """An object that differs between two states.

    `how` is `new`, `gone`, or the facts that differ with their old and new values.
    """

    thing: str
    how: str

    def __str__(self) -> str:
        return f"{self.thing}: {self.how}"


def gathered(found: Iterable[Thing]) -> Facts:
    """Return the facts of each object by its name; number objects that have the same name."""
    facts: Facts = {}
    for name, known in found:
        count, unique = 1, name
        while unique in facts:
            count += 1
            unique = f"{name} ({count})"
        facts[unique] = known
    return facts


def changes(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> list[StateChange]:
    """Return the objects that differ, without the sysctls of links that are new or gone."""
    coming_and_going = {
        name.removeprefix("link ")
        for name in before.keys() ^ after.keys()
        if name.startswith("link ")
    }
    found = []
    for thing in sorted({*before, *after}, key=_links_first):
        was, now = before.get(thing), after.get(thing)
        if was == now or _link_of_sysctl(thing) in coming_and_going:
            continue
        if was is None:
            found.append(StateChange(thing, NEW))
        elif now is None:
            found.append(StateChange(thing, "gone"))
        else:
            facts = (
                f"{key} was {was.get(key, 'absent')}, is {now.get(key, 'absent')}"
                for key in sorted({*was, *now})
                if was.get(key) != now.get(key)
            )
            found.append(StateChange(thing, "; ".join(facts)))
    return found


def differences(before: Raw, after: Raw) -> list[StateChange]:
    """Return the `changes` between two dumps of a namespace, decoding only differing parts."""
    if before == after:
        return []
    was, now = _unlike(before, after)
    if was == now == Raw():
        return []
    return changes(gathered(things(was, names(before))), gathered(things(now, names(after))))


def _unlike(before: Raw, after: Raw) -> tuple[Raw, Raw]:
    """Return from each of two dumps the parts that differ from the other dump."""
    unlike: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for part, was, now in zip(Raw._fields, before, after, strict=True):
        if was == now:
            continue
        sides: tuple[Any, Any] = (was, now)
        if part != "ruleset":  # in the ruleset the order counts
            sides = _moved(part, was, now)
        for side in (0, 1):
            unlike[side][part] = sides[side]
    return Raw(**unlike[0]), Raw(**unlike[1])


def _moved(
    part: str, before: tuple[Any, ...], after: tuple[Any, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the messages that only `before` has and those that only `after` has.

    Changes of counters and timers are ignored.
    """
    was, now = _only(before, after), _only(after, before)
    if not (was or now):
        return was, now
    was_still, now_still = ([still(part, item) for item in side] for side in (was, now))
    kept = set(_only(was_still, now_still)), set(_only(now_still, was_still))
    return (
        tuple(item for item, key in zip(was, was_still, strict=True) if key and key in kept[0]),
        tuple(item for item, key in zip(now, now_still, strict=True) if key and key in kept[1]),
    )


def _only(these: Sequence[Any], those: Sequence[Any]) -> tuple[Any, ...]:
    """Return the messages of `these` that are not in `those`, counting duplicates."""
    there = set(those)
    if len(there) == len(those) and len(set(these)) == len(these):
        return tuple(item for item in these if item not in there)
    return tuple((Counter(these) - Counter(those)).elements())


def _link_of_sysctl(thing: str) -> str | None:
    parts = thing.split(".", 3)
    if len(parts) == 4 and parts[2] in ("conf", "neigh"):
        return parts[3].rpartition(".")[0]
    return None


def _links_first(thing: str) -> tuple[bool, str]:
    return not thing.startswith("link "), thing
