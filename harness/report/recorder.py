"""Records of a run for summary and report, and their transport between processes.

Workers send plain data: JSON in their `workeroutput`.
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
"""The attribute of a test's report that has its id by `NodeIds`."""

RUNTIME_OUTPUT: Final = "netmodes_said"
"""The attribute of a failed test's report that has the runtime's output."""


class NodeIds:
    """Node ids for reports: those of the suites are the same wherever they are installed."""

    def __init__(self, root: Path, suites: Path) -> None:
        self._root, self._suites = root, suites.resolve()
        self._files: dict[str, str | None] = {}

    def __call__(self, node_id: str, file: str) -> str:
        """Return `node_id` with its file relative to the suites' folder, if it is in there.

        `file` is the path in pytest's location, relative to the root directory. pytest's own id of
        an installed test begins with the path on the command line.
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
        """Return the node id of an item."""
        return self(item.nodeid, item.location[0])


UNSUPPORTED = "unsupported: "
"""Prefix of the reason of a skip for a feature that the runtime does not declare."""

PROPERTY = "requirement"

BREAKS = "breaks"
"""The user properties of a test's report that name requirements."""


def properties(ids: Iterable[str]) -> list[tuple[str, object]]:
    """Return the properties that name a test's requirements in reports and JUnit XML."""
    return [(PROPERTY, id_) for id_ in ids]


def breaks(ids: Iterable[str]) -> list[tuple[str, object]]:
    """Return the properties of requirements that a report breaks, whatever its test checks."""
    return [(BREAKS, id_) for id_ in ids]


TROUBLE = "trouble"
"""The property of a report whose test ended because the runtime broke down."""


def judge(report: pytest.TestReport) -> Verdict | None:
    """Return the verdict of a report about its requirements; `None` if it has none."""
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
    """Return the feature that the test lacked, or an empty text."""
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.partition(UNSUPPORTED)[2]
        case _:
            return ""


RECORDER = pytest.StashKey["Recorder"]()
"""The key of the recorder: `request.config.stash[RECORDER]`."""


class Seen(NamedTuple):
    """Promise and observation of a cell, and the test that observed it."""

    promised: Promise
    observed: Observation | None
    test: str

    @property
    def kept(self) -> bool:
        """Whether the cell was observed, and as promised."""
        return self.observed is not None and self.promised.admits(self.observed)


class Recorder:
    """Matrices by title in the order of their first record, and data for the report.

    `test` is the node id of the current test. `runtime`, `stages` and `collected` are plain data:
    the runtime's description of itself, the plan that is up by title, and the collected node ids.
    `elsewhere` are the node ids of other shards.
    """

    def __init__(self) -> None:
        self._cells: dict[str, dict[Cell, Seen]] = {}
        self.test = ""
        self.runtime: dict[str, Any] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.collected: dict[str, list[str]] = {}
        self.elsewhere: list[str] = []

    def add(self, title: str, promised: Matrix[Promise], observed: Matrix[Observation]) -> None:
        """Record promise and observation.

        A repeated cell replaces the earlier record, unless that one was wrong: a failure must stay
        visible.
        """
        for cell, promise in promised.items():
            self._keep(title, cell, Seen(promise, observed.get(cell), self.test))

    def _keep(self, title: str, cell: Cell, seen: Seen) -> None:
        cells = self._cells.setdefault(title, {})
        before = cells.get(cell)
        if before is None or before.kept:
            cells[cell] = seen

    def matrices(self) -> dict[str, tuple[Matrix[Promise], Matrix[Observation]]]:
        """Return promised and observed matrix by title."""
        return {
            title: (
                Matrix({cell: seen.promised for cell, seen in cells.items()}),
                Matrix({cell: seen.observed for cell, seen in cells.items() if seen.observed}),
            )
            for title, cells in self._cells.items()
        }

    def cells(self) -> Iterator[tuple[str, Mapping[Cell, Seen]]]:
        """Return every title with its cells."""
        yield from self._cells.items()

    def set_stage(self, title: str, tell: Callable[[], dict[str, Any]]) -> None:
        """Record the plan behind the matrix of that title; `tell` is called once."""
        if title not in self.stages:
            self.stages[title] = tell()

    def dump(self) -> str:
        """Return everything as JSON for `load` in another process."""
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
        return json.dumps(plain, default=sorted)  # JSON has no sets

    def load(self, text: str) -> None:
        """Add the records of another recorder."""
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
        """Record the collected tests."""
        others = set(self.elsewhere)
        self.collected = {
            "kept": list(kept),
            "deselected": [id_ for id_ in deselected if id_ not in others],
            "elsewhere": self.elsewhere,
        }


def _outcome(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"outcome": Outcome(fields["outcome"])}


def describe_stage(scene: Scene) -> dict[str, Any]:
    """Return the scene's networks and containers with their actual addresses.

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


def describe_runtime(runtime: Adapter) -> dict[str, Any]:
    """Return the runtime's description of itself as plain data."""
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
