"""What a run has observed, kept for picture and report at its end, and carried between processes.

What workers send are plain data: JSON in their `workeroutput`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from harness.adapters.protocol import Adapter
from harness.model.matrix import Matrix
from harness.model.plan import (
    ATTACKER,
    BR0,
    HOST,
    INTERNET,
    NS1,
    NS2,
    Attached,
    Bridge,
    Cell,
    Joined,
    Observation,
    Outcome,
    Promise,
    Protocol,
)
from harness.model.topology import Interface, Topology
from harness.report.schema import Verdict
from harness.testbench.scene import Scene

NODE_ID: Final = "netmodes_id"
"""The attribute of a test's report that has its id in the words of `NodeIds`."""

SAID: Final = "netmodes_said"
"""The attribute of a failed test's report that has what `said` tells of it."""


class NodeIds:
    """Node ids as a report has them: the suites' are the same wherever they are installed."""

    def __init__(self, root: Path, suites: Path) -> None:
        self._root, self._suites = root, suites.resolve()
        self._files: dict[str, str | None] = {}

    def __call__(self, node_id: str, file: str) -> str:
        """`node_id`, its file named from the suites' own folder where it is in there.

        `file` is what pytest calls its location: its path seen from the root directory.
        pytest's own id of an installed test begins wherever the command line pointed to.
        """
        if file not in self._files:
            path = (self._root / file).resolve()
            inside = path.is_relative_to(self._suites)
            shown = path.relative_to(self._suites.parent).as_posix() if inside else None
            self._files[file] = shown
        _, colons, test = node_id.partition("::")
        shown = self._files[file]
        return node_id if shown is None else f"{shown}{colons}{test}"

    def of(self, item: pytest.Item) -> str:
        """The node id of an item."""
        return self(item.nodeid, item.location[0])


UNSUPPORTED = "unsupported: "
"""How the reason of a skip begins when a runtime does not declare a needed feature."""

PROPERTY = "requirement"

BREAKS = "breaks"
"""The user properties by which a test's report names requirements."""


def properties(ids: Iterable[str]) -> list[tuple[str, object]]:
    """The properties by which a test's reports, and JUnit XML, name its requirements."""
    return [(PROPERTY, id_) for id_ in ids]


def breaks(ids: Iterable[str]) -> list[tuple[str, object]]:
    """The properties of a report that breaks requirements whatever its test is about."""
    return [(BREAKS, id_) for id_ in ids]


TROUBLE = "trouble"
"""The property, if true, of a report of a test that ended because the runtime broke down."""


def judge(report: pytest.TestReport) -> Verdict | None:
    """What one report says about its requirements; `None` when it says nothing."""
    if report.failed:
        own = report.when == "call" and (TROUBLE, True) not in report.user_properties
        return Verdict.BROKEN if own else Verdict.ERROR
    if report.passed:
        return Verdict.KEPT if report.when == "call" else None
    match report.longrepr:
        case _ if lacking_feature(report):
            return Verdict.UNSUPPORTED
        case _:
            return None


def lacking_feature(report: pytest.TestReport) -> str:
    """Why the runtime cannot be held to what a test is about; empty if that is not so."""
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.partition(UNSUPPORTED)[2]
        case _:
            return ""


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


def staged(scene: Scene) -> dict[str, Any]:
    """The scene's networks and containers with the addresses that they came to have.

    The shape is that of `harness.report.schema.Stage`.
    """
    plan, topology = scene.plan, scene.world.topology
    networks = dict.fromkeys(name for item in plan.containers for name in item.networks)
    facts = {name: scene.runtime.network_facts(name) for name in networks}
    return {
        "routers": topology.routers,
        "world": _world(topology),
        "networks": [
            {
                "name": name,
                "interface": found.interface,
                "gateways": _words(found.gateways),
                "internal": plan.network(name).internal,
            }
            for name, found in facts.items()
        ],
        "containers": [
            {
                "name": item.name,
                "mode": str(item.mode),
                "networks": list(item.networks),
                "addresses": _addresses(scene, item.name)
                if isinstance(item.mode, Bridge | Attached)
                else [],
                "joined": item.mode.container if isinstance(item.mode, Joined) else None,
            }
            for item in plan.containers
        ],
    }


def _world(topology: Topology) -> dict[str, list[str]]:
    return {
        HOST: _words(topology.host),
        ATTACKER: _words(topology.attacker),
        INTERNET: _words(topology.internet),
        BR0: _words(topology.br0),
        NS1: _words(topology.ns1),
        NS2: _words(topology.ns2),
    }


def _addresses(scene: Scene, name: str) -> list[str]:
    return _words(item for item in scene[name].net.interfaces() if not item.ip.is_loopback)


def _words(interfaces: Iterable[Interface]) -> list[str]:
    return [str(item) for item in interfaces]


def introduced(runtime: Adapter) -> dict[str, Any]:
    """What a runtime says of itself, as plain data."""
    dialect = runtime.dialect
    return {
        "version": runtime.version,
        "features": sorted(runtime.features),
        "dialect": {name: _word(getattr(dialect, name)) for name in sorted(dialect.__slots__)},
    }


def _word(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return ", ".join(map(str, sorted(value)))
    return "none" if value is None else str(value).lower() if value in (True, False) else str(value)
