"""Hypothesis strategies over the model: plans, worlds, dialects, cells, observations.

Pure like the model. A plan drawn here can be built on a live runtime: every choice of address is
left to it, and `features` excludes what it does not claim.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv6Interface
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.model.dialect import Dialect
from harness.model.matrix import E, Matrix
from harness.model.plan import (
    BR0,
    BY_NAME,
    DEFAULT_NETWORK,
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    OUTSIDERS,
    PROTOCOLS,
    SELF,
    Attached,
    Bridge,
    Cell,
    ContainerSpec,
    Host,
    Joined,
    Mode,
    NetworkSpec,
    Nothing,
    Observation,
    Outcome,
    Plan,
    Promise,
)
from harness.model.topology import Topology

if TYPE_CHECKING:
    from harness.model.plan import Plan


EVERYTHING = frozenset(
    {"bridge", "host", "none", "container", "networks", "internal", "icc", "ipv6", "connect"}
)
"""Features (values of `adapters.protocol.Feature`) that shape a plan."""


@st.composite
def plans(
    draw: st.DrawFn,
    *,
    max_networks: int = 3,
    max_containers: int = 5,
    features: Collection[str] = EVERYTHING,
) -> Plan:
    """Draw plans that a runtime with `features` can build, within the given sizes.

    `features` must allow one mode that stands by itself: bridge, host or none.
    """

    def perhaps(feature: str) -> bool:
        return feature in features and draw(st.booleans())

    plan = Plan()
    for number in range(draw(st.integers(0, max_networks)) if "networks" in features else 0):
        internal, ipv6, deaf = perhaps("internal"), perhaps("ipv6"), perhaps("icc")
        plan = plan.with_network(
            NetworkSpec(f"net{number + 1}", internal=internal, ipv6=ipv6, icc=not deaf)
        )
    for number in range(draw(st.integers(0, max_containers))):
        mode = draw(st.sampled_from(modes(plan, features)))
        also: list[str] = []
        if isinstance(mode, Bridge) and perhaps("connect"):
            others = [name for name in _networks(plan) if name != mode.network]
            also = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        plan = plan.with_container(
            ContainerSpec(f"container{number + 1:02}", mode, also=tuple(also))
        )
    return plan


def _networks(plan: Plan) -> list[str]:
    return [DEFAULT_NETWORK, *(network.name for network in plan.networks)]


def modes(plan: Plan, features: Collection[str]) -> list[Mode]:
    """Return the modes that the next container of `plan` can have, the plainest first.

    A manual attachment needs a network in use: some runtimes create a bridge only then.
    """
    networks = _networks(plan)
    lived_on = {name for container in plan.containers for name in container.networks}
    offers: list[tuple[set[str], list[Mode]]] = [
        ({"bridge"}, [Bridge(name) for name in networks]),
        ({"host"}, [Host()]),
        ({"none"}, [Nothing()]),
        ({"none", "bridge"}, [Attached(name) for name in networks if name in lived_on]),
        ({"container"}, [Joined(container.name) for container in plan.containers]),
    ]
    return [mode for needed, them in offers if needed <= set(features) for mode in them]


def topologies() -> SearchStrategy[Topology]:
    """Return worlds with any number of routers."""
    return st.builds(Topology, routers=st.integers(1, 30))


def dialects() -> SearchStrategy[Dialect]:
    """Return every combination of the choices that decide reachability."""
    return st.builds(
        Dialect,
        bridge_address6=st.sampled_from([None, IPv6Interface("fd00:17::1/64")]),
        none_loopback=st.booleans(),
        none_loopback6=st.booleans(),
        none_resolver=st.booleans(),
        bridge_loopback6=st.booleans(),
        direct_routing=st.sampled_from(["drop", "reject", "accept"]),
        direct_routing6=st.sampled_from([None, "drop", "reject", "accept"]),
        router6=st.sampled_from(["kept", "cut-off"]),
        network_resolver=st.sampled_from(["reached", "unreachable"]),
        isolation=st.sampled_from(["networks", "none"]),
        masquerade_to_bystanders=st.booleans(),
        attached_masquerade=st.booleans(),
    )


_NAMES = ("container01", "container02", *OUTSIDERS)
_TARGETS = (SELF, LOOPBACK, *_NAMES[:2], GATEWAY, HOST, INTERNET, BY_NAME, BR0)


def cells() -> SearchStrategy[Cell]:
    """Return any cell of a small world."""
    return st.builds(
        Cell,
        st.sampled_from(_NAMES),
        st.sampled_from(_TARGETS),
        st.sampled_from(PROTOCOLS),
        st.sampled_from(FAMILIES),
    )


_OUTCOMES = st.sampled_from(list(Outcome))
_TTLS = st.none() | st.integers(1, 255)
_SENDERS = st.none() | st.sampled_from([*_NAMES, "172.17.42.2"])


def observations() -> SearchStrategy[Observation]:
    """Return anything that a probe can report."""
    return st.builds(
        Observation,
        _OUTCOMES,
        code=st.sampled_from(["", "rst", "port-unreachable"]),
        ttl=_TTLS,
        seen_ttl=_TTLS,
        seen_from=_SENDERS,
        rtt=st.none() | st.floats(0, 1),
        detail=st.text(max_size=8),
    )


def promises() -> SearchStrategy[Promise]:
    """Return anything that an oracle can promise: a sender only where a packet arrives."""
    anything = st.builds(
        Promise,
        _OUTCOMES,
        codes=st.frozensets(st.sampled_from(["rst", "port-unreachable"])),
        ttl=_TTLS,
        seen_from=_SENDERS,
        limited=st.booleans(),
        requirement=st.just("BR-4"),
        why=st.text(max_size=8),
    )
    return anything.map(_sensible)


def _sensible(said: Promise) -> Promise:
    """Return True if only an answer has a sender, and only a refusal a limit."""
    heard = said.outcome is Outcome.REPLY
    limited = said.limited and said.outcome is Outcome.REJECTED
    return replace(said, seen_from=said.seen_from if heard else None, limited=limited)


def matrices(entries: SearchStrategy[E], *, max_size: int = 12) -> SearchStrategy[Matrix[E]]:
    """Return matrices of `promises()` or `observations()`."""
    return st.dictionaries(cells(), entries, max_size=max_size).map(Matrix)


@st.composite
def kept(draw: st.DrawFn, promise: Promise) -> Observation:
    """Draw observations that keep `promise`, free in all that it leaves open."""
    ttl, seen_ttl = draw(_TTLS), draw(_TTLS)
    if promise.ttl is not None:
        ttl, seen_ttl = draw(
            st.sampled_from([(promise.ttl, None), (None, promise.ttl), (promise.ttl, promise.ttl)])
        )
    outcome = promise.outcome
    if promise.limited:
        outcome = draw(st.sampled_from([outcome, Outcome.DROPPED]))
    seen_from = promise.seen_from
    if seen_from is None and promise.outcome is Outcome.REPLY:
        seen_from = draw(_SENDERS)
    return Observation(
        outcome,
        code=draw(st.sampled_from(sorted(promise.codes) or ["", "rst"])),
        ttl=ttl,
        seen_ttl=seen_ttl,
        seen_from=seen_from,
        rtt=draw(st.none() | st.floats(0, 1)),
    )
