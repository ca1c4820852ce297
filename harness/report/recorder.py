"""Records of a run, for summary and report, and their transfer from worker processes.

A worker sends its records as JSON in pytest-xdist's `workeroutput`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
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
    Cell,
    Joined,
    Observation,
    Promise,
)
from harness.model.topology import Interface
from harness.report.sanitize import line
from harness.report.schema import Implementation, Stage, StagedContainer, StagedNetwork, Verdict
from harness.testbench.scene import Scene

NODE_ID: Final = "netmodes_id"
"""The attribute of a test's report that has the node id from `NodeIds`."""

RUNTIME_OUTPUT: Final = "netmodes_said"
"""The attribute of a failed test's report that has the runtime's output."""


class NodeIds:
    """Node ids for reports: those of the suites do not depend on the place of installation."""

    def __init__(self, root: Path, suites: Path) -> None:
        self._root, self._suites = root, suites.resolve()
        self._files: dict[str, str | None] = {}

    def __call__(self, node_id: str, file: str) -> str:
        """Return the report's node id of a test; `node_id` is pytest's.

        The path of a file of the suites becomes relative to the parent of the suites' folder.
        `file` is the path in pytest's location, relative to pytest's root directory. pytest's own
        id of an installed test begins with the path on the command line.
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
        """Return the report's node id of a pytest item."""
        return self(item.nodeid, item.location[0])


UNSUPPORTED = "unsupported: "
"""Prefix of the reason why a test is skipped if the adapter does not declare a feature."""

PROPERTY = "requirement"

BREAKS = "breaks"
"""The user properties of a test's report that name requirements."""


def properties(ids: Iterable[str]) -> list[tuple[str, object]]:
    """Return the properties that name a test's requirements in reports and JUnit XML."""
    return [(PROPERTY, id_) for id_ in ids]


def breaks(ids: Iterable[str]) -> list[tuple[str, object]]:
    """Return the properties that name requirements broken in a report, whatever its test checks."""
    return [(BREAKS, id_) for id_ in ids]


CONTRADICTED = "contradicted"
"""The user properties that name the requirements of the wrong cells of a compared matrix."""

HELD = "held"
"""The user properties that name the requirements whose cells in that matrix are as promised."""

TROUBLE = "trouble"
"""The property of a report whose test ended because the runtime broke down."""


def judge(report: pytest.TestReport) -> Verdict | None:
    """Return the verdict of a phase's report about the test's requirements, `None` without one."""
    if report.failed:
        own = report.when == "call" and (TROUBLE, True) not in report.user_properties
        return Verdict.BROKEN if own else Verdict.ERROR
    if report.passed:
        return Verdict.KEPT if report.when == "call" else None
    return Verdict.UNSUPPORTED if lacking_feature(report) else None


def lacking_feature(report: pytest.TestReport) -> str:
    """Return the reason for "unsupported", which names the feature; `""` for other results."""
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.partition(UNSUPPORTED)[2]
        case _:
            return ""


RECORDER = pytest.StashKey["Recorder"]()
"""The key of the recorder: `request.config.stash[RECORDER]`."""


class Seen(NamedTuple):
    """The promise for a cell, the observation of it, and the test that observed it."""

    promised: Promise
    observed: Observation | None
    test: str

    @property
    def kept(self) -> bool:
        """Whether the cell was observed, and the observation was as promised."""
        return self.observed is not None and self.promised.admits(self.observed)


@dataclass(frozen=True, slots=True)
class _Records:
    """The records of one worker process."""

    cells: list[tuple[str, Cell, Seen]]
    runtime: Implementation | None
    stages: dict[str, Stage]
    collected: dict[str, list[str]]


class Recorder:
    """Recorder of matrices, and of other data for the report.

    Matrices are recorded by title. `test` is the node id of the current test, `runtime` the
    runtime's description of itself. `stages` has the plan of each matrix by title, with its actual
    addresses. `collected` has the collected node ids, and `elsewhere` the node ids of other shards'
    tests. `compared` has the properties `CONTRADICTED` and `HELD` of the current test.
    """

    def __init__(self) -> None:
        self._cells: dict[str, dict[Cell, Seen]] = {}
        self.test = ""
        self.runtime: Implementation | None = None
        self.stages: dict[str, Stage] = {}
        self.collected: dict[str, list[str]] = {}
        self.elsewhere: list[str] = []
        self.compared: list[tuple[str, object]] = []

    def add(self, title: str, promised: Matrix[Promise], observed: Matrix[Observation]) -> None:
        """Record the promised and the observed matrix under a title.

        A repeated cell replaces its earlier record, unless the earlier observation was wrong: a
        failure must stay visible.
        """
        for cell, promise in promised.items():
            self._keep(title, cell, Seen(promise, observed.get(cell), self.test))

    def _keep(self, title: str, cell: Cell, seen: Seen) -> None:
        cells = self._cells.setdefault(title, {})
        before = cells.get(cell)
        if before is None or before.kept:
            cells[cell] = seen

    def matrices(self) -> dict[str, tuple[Matrix[Promise], Matrix[Observation]]]:
        """Return the promised and the observed matrix of each title."""
        return {
            title: (
                Matrix({cell: seen.promised for cell, seen in cells.items()}),
                Matrix({cell: seen.observed for cell, seen in cells.items() if seen.observed}),
            )
            for title, cells in self._cells.items()
        }

    def cells(self) -> Iterator[tuple[str, Mapping[Cell, Seen]]]:
        """Yield each title with its recorded cells."""
        yield from self._cells.items()

    def set_stage(self, title: str, describe: Callable[[], Stage]) -> None:
        """Record the plan behind the matrix of that title; `describe` is called once per title."""
        if title not in self.stages:
            self.stages[title] = describe()

    def dump(self) -> str:
        """Return all records as JSON, for `load` in another process."""
        rows = [(title, *row) for title, cells in self.cells() for row in cells.items()]
        records = _Records(rows, self.runtime, self.stages, self.collected)
        return json.dumps(msgspec.to_builtins(records))  # escapes surrogates, as msgspec does not

    def load(self, text: str) -> None:
        """Add the records that another recorder's `dump` returned."""
        records = msgspec.convert(json.loads(text), _Records)
        for row in records.cells:
            self._keep(*row)
        self.runtime = self.runtime or records.runtime
        self.stages = records.stages | self.stages
        self.collected = self.collected or records.collected

    def note_collected(self, kept: Iterable[str], deselected: Iterable[str]) -> None:
        """Record the node ids of the collected tests: the selected and the deselected ones."""
        others = set(self.elsewhere)
        self.collected = {
            "kept": list(kept),
            "deselected": [id_ for id_ in deselected if id_ not in others],
            "elsewhere": self.elsewhere,
        }


def describe_stage(scene: Scene) -> Stage:
    """Return networks and containers of a scene with their actual addresses.

    A scene is the networks and containers of a test.
    """
    plan, topology = scene.plan, scene.world.topology
    world = {
        HOST: topology.host,
        ATTACKER: topology.attacker,
        INTERNET: topology.internet,
        BR0: topology.br0,
        NS1: topology.ns1,
        NS2: topology.ns2,
    }
    networks = dict.fromkeys(name for item in plan.containers for name in item.networks)
    facts = {name: scene.runtime.network_facts(name) for name in networks}
    return Stage(
        routers=topology.routers,
        world={name: _words(own) for name, own in world.items()},
        networks=tuple(
            StagedNetwork(
                name=name,
                interface=line(found.interface) if found.interface else None,
                gateways=_words(found.gateways),
                internal=plan.network(name).internal,
            )
            for name, found in facts.items()
        ),
        containers=tuple(
            StagedContainer(
                name=item.name,
                mode=str(item.mode),
                networks=item.networks,
                addresses=_addresses(scene, item.name) if item.networks else (),
                joined=item.mode.container if isinstance(item.mode, Joined) else None,
            )
            for item in plan.containers
        ),
    )


def _addresses(scene: Scene, name: str) -> tuple[str, ...]:
    return _words(item for item in scene[name].net.interfaces() if not item.ip.is_loopback)


def _words(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    return tuple(map(str, interfaces))


def describe_runtime(runtime: Adapter) -> Implementation:
    """Return the runtime's name, version, features and dialect, as its adapter gives them."""
    dialect = runtime.dialect
    return Implementation(
        name=line(runtime.name),
        version=line(runtime.version) if runtime.version else None,
        features=tuple(line(str(item)) for item in sorted(runtime.features)),
        dialect={name: line(_word(getattr(dialect, name))) for name in sorted(dialect.__slots__)},
    )


def _word(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return ", ".join(map(str, sorted(value)))
    if value is None:
        return "none"
    return str(value).lower() if value in (True, False) else str(value)
