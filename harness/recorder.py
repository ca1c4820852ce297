"""What a run has observed, kept for picture and report at its end, and carried between processes.

What workers send are plain data: JSON in their `workeroutput`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import pytest

from harness.matrix import Matrix
from harness.model import Cell, Observation, Outcome, Promise, Protocol

RECORDER = pytest.StashKey["Recorder"]()
"""Where a fixture finds what keeps matrices for the picture: `request.config.stash[RECORDER]`."""


class Seen(NamedTuple):
    """What was promised and observed in a cell, and which test asked."""

    promised: Promise
    observed: Observation | None
    test: str

    @property
    def kept(self) -> bool:
        """Whether it was observed, as promised."""
        return self.observed is not None and self.promised.admits(self.observed)


class Recorder:
    """Matrices by title, in the order in which their titles came up.

    `test` is the node id of the test that runs, for whoever asks which test it was.
    `runtime`, `stages` and `collected` are plain data for the report: what the runtime
    says of itself, who was there by title, and the node ids that were found. `elsewhere`
    are those that other shards run.
    """

    def __init__(self) -> None:
        self._cells: dict[str, dict[Cell, Seen]] = {}
        self.test = ""
        self.runtime: dict[str, Any] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.collected: dict[str, list[str]] = {}
        self.elsewhere: list[str] = []

    def add(self, title: str, promised: Matrix[Promise], observed: Matrix[Observation]) -> None:
        """Keep what was observed of what was promised.

        A cell that comes again replaces what there was, unless that was wrong: what
        went wrong once is what a reader must see.
        """
        for cell, promise in promised.items():
            self._keep(title, cell, Seen(promise, observed.get(cell), self.test))

    def _keep(self, title: str, cell: Cell, seen: Seen) -> None:
        cells = self._cells.setdefault(title, {})
        before = cells.get(cell)
        if before is None or before.kept:
            cells[cell] = seen

    def matrices(self) -> dict[str, tuple[Matrix[Promise], Matrix[Observation]]]:
        """Promised and observed matrix by title."""
        return {
            title: (
                Matrix({cell: seen.promised for cell, seen in cells.items()}),
                Matrix({cell: seen.observed for cell, seen in cells.items() if seen.observed}),
            )
            for title, cells in self._cells.items()
        }

    def cells(self) -> Iterator[tuple[str, Mapping[Cell, Seen]]]:
        """Every title with its cells."""
        yield from self._cells.items()

    def set_stage(self, title: str, tell: Callable[[], dict[str, Any]]) -> None:
        """Keep who is there while the matrix of that title is measured; `tell` is asked once."""
        if title not in self.stages:
            self.stages[title] = tell()

    def dump(self) -> str:
        """Everything, as JSON for another process's `load`."""
        rows = [
            [
                title,
                asdict(cell),
                asdict(seen.promised),
                None if seen.observed is None else asdict(seen.observed),
                seen.test,
            ]
            for title, cells in self._cells.items()
            for cell, seen in cells.items()
        ]
        plain = {
            "cells": rows,
            "runtime": self.runtime,
            "stages": self.stages,
            "collected": self.collected,
        }
        return json.dumps(plain, default=sorted)  # sets are all that JSON does not know

    def load(self, text: str) -> None:
        """Add what another recorder dumped."""
        plain = json.loads(text)
        for title, cell_, promise_, seen_, test in plain["cells"]:
            cell = Cell(**(cell_ | {"protocol": Protocol(cell_["protocol"])}))
            promise = Promise(**_outcome(promise_ | {"codes": frozenset(promise_["codes"])}))
            observed = None if seen_ is None else Observation(**_outcome(seen_))
            self._keep(title, cell, Seen(promise, observed, test))
        self.runtime = self.runtime or plain["runtime"]
        self.stages = plain["stages"] | self.stages
        self.collected = self.collected or plain["collected"]

    def note_collected(self, kept: Iterable[str], deselected: Iterable[str]) -> None:
        """Keep which tests there are."""
        others = set(self.elsewhere)
        self.collected = {
            "kept": list(kept),
            "deselected": [id_ for id_ in deselected if id_ not in others],
            "elsewhere": self.elsewhere,
        }


def _outcome(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"outcome": Outcome(fields["outcome"])}
