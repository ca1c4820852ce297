"""Helpers for the tests of harness/model: promises for the cast, and observations."""

from __future__ import annotations

from harness.model.dialect import Dialect
from harness.model.matrix import Matrix
from harness.model.oracle import promised
from harness.model.plan import (
    CAST,
    Attached,
    Cell,
    ContainerSpec,
    Observation,
    Outcome,
    Promise,
    Protocol,
)
from harness.model.topology import Topology

CELL = Cell("a", "b", Protocol.ICMP, 4)
REPLY = Promise(Outcome.REPLY, ttl=64, seen_from="a", requirement="BR-4", why="no router between")
KEPT = Observation(Outcome.REPLY, ttl=64, seen_ttl=64, seen_from="a")
LOST = Observation(Outcome.DROPPED)

PLAN = CAST.with_container(ContainerSpec("container07-attached", Attached()))
PROMISED = promised(PLAN, Dialect(), Topology())


def keeping(promised: Matrix[Promise]) -> Matrix[Observation]:
    """Return the observations of a runtime that keeps every promise."""
    return Matrix(
        (
            cell,
            Observation(
                promise.outcome,
                code=min(promise.codes, default=""),
                ttl=promise.ttl,
                seen_ttl=promise.ttl,
                seen_from=promise.seen_from,
            ),
        )
        for cell, promise in promised.items()
    )


def changed(matrix: Matrix[Observation], **fields: object) -> Matrix[Observation]:
    """Return the matrix in which every cell that `fields` select is lost."""
    lost = matrix.select(**fields)  # type: ignore[arg-type] # the caller names select's own
    return Matrix({**matrix, **dict.fromkeys(lost, LOST)})
