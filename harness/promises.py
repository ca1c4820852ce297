"""What was promised last: whoever observes a matrix asks for it, and so does who compares."""

from __future__ import annotations

from collections.abc import Collection

from harness import oracle
from harness.dialect import Dialect
from harness.matrix import Matrix
from harness.model import Cell, Plan, Promise
from harness.topology import Topology


class Promises:
    """Those of one scene. The oracle is pure: what it said of the same it says again."""

    def __init__(self) -> None:
        self._last: tuple[object, Matrix[Promise]] | None = None

    def of(
        self,
        plan: Plan,
        dialect: Dialect,
        topology: Topology,
        cells: Collection[Cell] | None = None,
    ) -> Matrix[Promise]:
        """As `oracle.promised`."""
        asked = None if cells is None else tuple(cells)
        given = plan, dialect, topology, asked
        if self._last is None or self._last[0] != given:
            self._last = given, oracle.promised(plan, dialect, topology, asked)
        return self._last[1]
