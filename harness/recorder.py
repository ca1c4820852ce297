"""What a run has observed, kept for the picture at its end, and carried between processes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from harness.matrix import Matrix
from harness.model import Cell, Observation, Outcome, Promise, Protocol

RECORDER = pytest.StashKey["Recorder"]()
"""Where a fixture finds what keeps matrices for the picture: `request.config.stash[RECORDER]`."""


class Recorder:
    """Matrices by title, in the order in which their titles came up."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[Cell, tuple[Promise, Observation | None]]] = {}

    def add(self, title: str, promised: Matrix[Promise], observed: Matrix[Observation]) -> None:
        """Keep what was observed of what was promised.

        A cell that comes again replaces what there was, unless that was wrong: what
        went wrong once is what a reader must see.
        """
        cells = self._cells.setdefault(title, {})
        for cell, promise in promised.items():
            before = cells.get(cell)
            if before is None or (before[1] is not None and before[0].admits(before[1])):
                cells[cell] = promise, observed.get(cell)

    def matrices(self) -> dict[str, tuple[Matrix[Promise], Matrix[Observation]]]:
        """Promised and observed matrix by title."""
        return {
            title: (
                Matrix({cell: promise for cell, (promise, _) in cells.items()}),
                Matrix({cell: seen for cell, (_, seen) in cells.items() if seen is not None}),
            )
            for title, cells in self._cells.items()
        }

    def dump(self) -> str:
        """Everything, as JSON for another process's `load`."""
        rows = [
            [title, asdict(cell), asdict(promise), None if seen is None else asdict(seen)]
            for title, cells in self._cells.items()
            for cell, (promise, seen) in cells.items()
        ]
        return json.dumps(rows, default=sorted)  # sets are all that JSON does not know

    def load(self, text: str) -> None:
        """Add what another recorder dumped."""
        for title, cell_, promise_, seen_ in json.loads(text):
            cell = Cell(**(cell_ | {"protocol": Protocol(cell_["protocol"])}))
            promise = Promise(**_outcome(promise_ | {"codes": frozenset(promise_["codes"])}))
            seen = Matrix[Observation](
                {} if seen_ is None else {cell: Observation(**_outcome(seen_))}
            )
            self.add(title, Matrix({cell: promise}), seen)


def _outcome(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"outcome": Outcome(fields["outcome"])}
