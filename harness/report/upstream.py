"""Real bugs of container runtimes, and whether the suites detect them.

The files `suites/upstream/*.toml` store a sample of fixed bugs, one file for each project:

```toml
[project]
title = "podman"
drawn = "How the sample was drawn."

[[bug]]
ref = "podman#22399"
fixed = "5.5.1"
behaviour = "DNS options of a container are added to the host's options."
class = "names: options and files"
scope = "in"
requirements = ["DNS-1"]
replay = ""
missed = "no test sets DNS options"
...
```

A bug counts as caught only if its replay, a fault, was tried and tests failed. `netmodes coverage`
tries the replays.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec

from harness.model.requirements import Catalogue, CatalogueError

_FAULT: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TEST: Final = re.compile(r"suites/[\w/]+\.py::test_\w+(\[.+\])?")
_SENTENCE: Final = re.compile(r"[A-Z`/].*\.", re.DOTALL)


class BadBugs(ValueError):
    """A file of bugs is malformed; the message names the file, the bug and the error."""


class BugClass(StrEnum):
    """Class of a bug: the part of a runtime's network that it broke."""

    ADDRESSES = "addresses and MACs"
    ROUTES = "routes, gateways and their priority"
    INTERFACES = "interfaces, MTUs and sysctls"
    ISOLATION = "isolation and filtering"
    PORTS = "published ports"
    FORWARDING = "names: forwarding and transport"
    NAMES = "names: of containers and networks"
    FILES = "names: options and files"
    NETWORKS = "networks: concurrency, kills, names"
    REMOVAL = "removal and failed starts"
    RESTARTS = "restarts of containers and daemons"
    JOINED = "shared network namespaces"
    FIREWALL = "the host's firewall"
    UPLINK = "the uplink and the host's network manager"
    LINKS = "macvlan and the operator's bridges"
    ROOTLESS = "rootless drivers"
    PLUGINS = "DHCP and options of CNI plugins"
    FLOWS = "long and idle flows"
    PACKETS = "odd packets and throughput"
    LIMITS = "bandwidth limits"


class Bug(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bug of a real runtime that a release has fixed.

    `scope` is `in`, or the reason why a test of networking cannot be about the bug. A bug in scope
    has the `requirements` whose tests should detect it. `replay` is the id of a fault with the
    behaviour of the bug. If no fault can replay the bug, `replay` may be a test that has the bug's
    very trigger. `missed` is the reason why no test detects the bug.
    """

    ref: str
    fixed: str
    behaviour: str
    class_: BugClass | None = msgspec.field(name="class", default=None)
    scope: str = "in"
    requirements: tuple[str, ...] = ()
    replay: str = ""
    missed: str = ""

    @property
    def in_scope(self) -> bool:
        """True if a test of networking could detect the bug."""
        return self.scope == "in"

    @property
    def by_reading(self) -> bool:
        """True if no fault replays the bug, and a test has its trigger."""
        return "::" in self.replay

    @property
    def fault(self) -> str:
        """The id of the fault that replays the bug, or an empty text."""
        return "" if self.by_reading else self.replay


class Project(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A project: its name, and how the sample of its bugs was drawn."""

    title: str
    drawn: str


@dataclass(frozen=True, slots=True)
class BugFile:
    """The bugs of one project."""

    project: Project
    bug: tuple[Bug, ...]


class _RawFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file whose bugs are not read yet: an error in a bug names its number and `ref`."""

    project: Project
    bug: tuple[dict[str, Any], ...]


def load(folder: Traversable, catalogue: Catalogue) -> tuple[BugFile, ...]:
    """Return the content of each TOML file in a folder, by file name. Raises `BadBugs`."""
    found: list[BugFile] = []
    files: dict[str, str] = {}
    paths = [path for path in folder.iterdir() if path.name.endswith(".toml")]
    for path in sorted(paths, key=lambda path: path.name):
        try:
            content = parse(path.read_text(encoding="utf-8"), catalogue)
            for bug in content.bug:
                if first := files.get(bug.ref):
                    raise BadBugs(f"{bug.ref}: {first} has this bug already")
                files[bug.ref] = path.name
        except (BadBugs, UnicodeDecodeError) as error:
            raise BadBugs(f"{path.name}: {error}") from error
        found.append(content)
    return tuple(found)


def parse(text: str, catalogue: Catalogue) -> BugFile:
    """Return the bugs of one project from the text of its file. Raises `BadBugs`."""
    try:
        raw = msgspec.convert(tomllib.loads(text), _RawFile)
    except tomllib.TOMLDecodeError as error:
        raise BadBugs(f"it is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise BadBugs(str(error)) from error
    found: dict[str, Bug] = {}
    for number, entry in enumerate(raw.bug, 1):
        try:
            bug = msgspec.convert(entry, Bug)
        except msgspec.ValidationError as error:
            name = entry.get("ref") or "without a ref"
            raise BadBugs(f"bug {number} ({name}): {error}") from error
        for mistake in _mistakes(bug, catalogue):
            raise BadBugs(f"bug {number} ({bug.ref}): {mistake}")
        if bug.ref in found:
            raise BadBugs(f"{bug.ref}: two bugs have this ref")
        found[bug.ref] = bug
    return BugFile(raw.project, tuple(found.values()))


def _mistakes(bug: Bug, catalogue: Catalogue) -> Iterator[str]:
    try:
        catalogue.reference(bug.ref)
    except CatalogueError as error:
        yield str(error)
    if not _SENTENCE.fullmatch(bug.behaviour):
        yield "the behaviour is not a full sentence"
    for field_ in ("scope", "missed"):
        if getattr(bug, field_).endswith("."):
            yield f"{field_} is a clause: leave its full stop out"
    yield from _mistakes_in_scope(bug, catalogue) if bug.in_scope else _mistakes_out(bug)


def _mistakes_out(bug: Bug) -> Iterator[str]:
    if bug.requirements or bug.replay or bug.missed or bug.class_:
        yield "a bug out of scope has no class, requirement, replay and reason"


def _mistakes_in_scope(bug: Bug, catalogue: Catalogue) -> Iterator[str]:
    if bug.class_ is None:
        yield "a bug in scope has a class"
    for id_ in bug.requirements:
        if id_ not in catalogue:
            yield f"there is no requirement {id_}"
    if bug.replay and not bug.requirements:
        yield "a bug with a replay names the requirements whose tests should detect it"
    if not bug.replay and not bug.missed:
        yield "without a replay, `missed` says why no test detects the bug"
    if bug.by_reading and bug.missed:
        yield "a test that has the trigger of the bug does not miss it"
    if bug.replay and not (_FAULT.fullmatch(bug.replay) or _TEST.fullmatch(bug.replay)):
        yield f"{bug.replay!r} is neither the id of a fault nor the node id of a test"


# --- verdicts ----------------------------------------------------------------


class Verdict(StrEnum):
    """Whether the suites detect a bug, as a run of `netmodes coverage` shows."""

    CAUGHT = "caught"
    """A test of each requirement failed when the bug was replayed."""
    MISSED = "missed"
    BY_READING = "by reading"
    """A test has the trigger of the bug, but no fault can replay the bug."""
    UNSUPPORTED = "unsupported"
    """The runtime under test does not have the feature that the bug is about."""
    OUT = "out of scope"


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a trial of a replay: `killers` are tests that failed, by requirement.

    `broken` is the error of a replay that failed itself.
    """

    killers: Mapping[str, str] = field(default_factory=dict)
    supported: bool = True
    broken: str = ""


@dataclass(frozen=True, slots=True)
class BugVerdict:
    """The verdict on a bug: the tests that caught it, or the reason why it was missed.

    `surprise` says that the record and the trial contradict each other; it is empty if they agree.
    """

    bug: Bug
    verdict: Verdict
    tests: tuple[str, ...] = ()
    reason: str = ""
    surprise: str = ""


def judge(bug: Bug, trials: Mapping[str, Replayed]) -> BugVerdict:
    """Return the verdict on a bug; `trials` has the results of the replays by the fault's id."""
    if not bug.in_scope:
        return BugVerdict(bug, Verdict.OUT, reason=bug.scope)
    if bug.by_reading:
        return BugVerdict(bug, Verdict.BY_READING, (bug.replay,))
    if not bug.fault:
        return BugVerdict(bug, Verdict.MISSED, reason=bug.missed)
    return _judge_trial(bug, trials.get(bug.fault))


def _judge_trial(bug: Bug, trial: Replayed | None) -> BugVerdict:
    if trial is None or trial.broken:
        surprise = f"{bug.fault} failed: {trial.broken}" if trial else f"no fault {bug.fault}"
        return BugVerdict(bug, Verdict.MISSED, surprise=surprise)
    if set(bug.requirements) <= trial.killers.keys():
        tests = tuple(dict.fromkeys(trial.killers[id_] for id_ in bug.requirements))
        surprise = "tests catch it now: remove its `missed`" if bug.missed else ""
        return BugVerdict(bug, Verdict.CAUGHT, tests, surprise=surprise)
    if not trial.supported:
        return BugVerdict(bug, Verdict.UNSUPPORTED, reason=f"needs {', '.join(bug.requirements)}")
    surprise = "" if bug.missed else f"no test caught {bug.fault}: say why in `missed`"
    return BugVerdict(bug, Verdict.MISSED, reason=bug.missed, surprise=surprise)


def count(verdicts: Collection[BugVerdict]) -> dict[Verdict, int]:
    """Return the number of bugs for each verdict."""
    return {kind: sum(item.verdict is kind for item in verdicts) for kind in Verdict}
