"""Hypothesis strategies for worlds, dialects, cells, promises and observations."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Interface

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.model.dialect import Dialect
from harness.model.matrix import E, Matrix
from harness.model.plan import (
    BR0,
    BY_NAME,
    FAMILIES,
    GATEWAY,
    HOST,
    INTERNET,
    LOOPBACK,
    OUTSIDERS,
    PROTOCOLS,
    SELF,
    Cell,
    Observation,
    Outcome,
    Promise,
)
from harness.model.topology import Topology


def topologies() -> SearchStrategy[Topology]:
    """Return a strategy of topologies with any permitted number of routers."""
    return st.builds(Topology, routers=st.integers(1, 30))


def dialects() -> SearchStrategy[Dialect]:
    """Return a strategy of dialects: any combination of the fields that decide reachability."""
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
    """Return a strategy of the cells of a small example world."""
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
    """Return a strategy of all observations that a probe can report."""
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
    """Return a strategy of all promises that an oracle can make.

    A promise has a sender only if a packet arrives.
    """
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


def _sensible(drawn: Promise) -> Promise:
    """Return the promise without fields that its outcome excludes.

    Only a reply has a sender, and only a rejection has a rate limit.
    """
    seen_from = drawn.seen_from if drawn.outcome is Outcome.REPLY else None
    limited = drawn.limited and drawn.outcome is Outcome.REJECTED
    return replace(drawn, seen_from=seen_from, limited=limited)


def matrices(entries: SearchStrategy[E], *, max_size: int = 12) -> SearchStrategy[Matrix[E]]:
    """Return a strategy of matrices of `promises()` or `observations()`."""
    return st.dictionaries(cells(), entries, max_size=max_size).map(Matrix)


@st.composite
def kept(draw: st.DrawFn, promise: Promise) -> Observation:
    """Draw observations that keep `promise`.

    Fields that the promise leaves open have any value.
    """
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
