"""The pytest plugin: options, sandbox, gating, evidence. Hooks only.

Installed, it is loaded in every pytest run of its environment, so it does nothing
there unless the run is of its *concern*: the ini option `netmodes` says so, or a
runtime is named, or the suites that come with it are to be run.
"""

from __future__ import annotations

import importlib.resources
import platform
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from harness import doctor, guarding, profiles, requirements, sandbox
from harness.adapters import registry
from harness.adapters.registry import UnknownRuntime
from harness.autopsy import hooks
from harness.faults.catalogue import FaultError, Faults, UnknownFault
from harness.faults.pick import FAULT, runtime_name
from harness.matrix import Matrix, explain
from harness.recorder import RECORDER, Recorder
from harness.report import setup as report_setup
from harness.requirements import Catalogue, Requirement, UnknownRequirement
from harness.summary import UNSUPPORTED, Summary, properties
from harness.version import __version__

pytest_plugins = ["harness.fixtures"]

CATALOGUE = pytest.StashKey[Catalogue]()
FEATURES = pytest.StashKey[frozenset[str]]()

_SUITES = Path(__file__).parents[1] / "suites"
_ONLY_TELLS = (
    "collectonly",
    "help",
    "version",
    "markers",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
)
"""Options with which pytest tells something and runs no test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a conformance run."""
    group = parser.getgroup("netmodes", "container network modes")
    group.addoption(
        "--runtime",
        metavar="NAME",
        help=f"the container runtime under test (default: {registry.DEFAULT})",
    )
    group.addoption(
        "--sandbox",
        choices=("auto", "always", "never"),
        default="auto",
        help="private namespaces around the whole run: auto makes them unless the run is in "
        "some already, always makes new ones, never runs only what needs none (default: auto)",
    )
    group.addoption(
        "--fault",
        metavar="ID",
        help="sabotage the runtime under test with this fault; `netmodes faults --list` has them",
    )
    group.addoption(
        "--requirement",
        metavar="ID",
        action="append",
        default=[],
        help="run only the tests of this requirement; may be given several times",
    )
    profiles.add_option(group)
    report_setup.add_options(group)
    hooks.add_options(group)
    parser.addini(
        "netmodes",
        "whether this project's tests are conformance tests: sandbox, requirements, summary",
        type="bool",
        default=False,
    )


def _concerned(config: pytest.Config) -> bool:
    if config.getini("netmodes") or config.getoption("runtime"):
        return True
    for argument in config.args:
        where, _, _ = argument.partition("::")
        if config.getoption("pyargs") and where.partition(".")[0] == _SUITES.name:
            return True
        if (config.invocation_params.dir / where).resolve().is_relative_to(_SUITES):
            return True
    return False


# --- the sandbox -----------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Move the whole run into a sandbox, before any worker is started.

    Where the machine cannot run live tests the run ends here, with the reason and
    what to do about it: never green for want of a machine.
    """
    if _wants_sandbox(config):
        try:
            sandbox.enter()
        except sandbox.SandboxError as error:
            raise pytest.UsageError(_cannot(doctor.refusal(error))) from error
        for missing in doctor.essentials():
            raise pytest.UsageError(_cannot(missing))
    return (yield)


def _wants_sandbox(config: pytest.Config) -> bool:
    choice = config.getoption("sandbox")
    if choice == "never" or sys.platform != "linux" or hasattr(config, "workerinput"):
        return False
    if any(config.getoption(name, default=False) for name in _ONLY_TELLS):
        return False
    return choice == "always" or (_concerned(config) and not sandbox.inside())


def _cannot(finding: doctor.Finding) -> str:
    return (
        f"this machine cannot run live tests: {finding}. "
        "`netmodes doctor` tells more; --sandbox=never runs what needs no sandbox"
    )


# --- what a run is about ---------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Load catalogue and adapter, get ready to sum up. An unknown runtime is a usage error."""
    config.addinivalue_line(
        "markers", "requirement(*ids): the rows of the requirement catalogue that a test checks"
    )
    config.stash[RECORDER] = Recorder()
    if not _concerned(config):
        return
    try:
        config.stash[FEATURES] = registry.find(runtime_name(config)).features
    except (UnknownRuntime, ImportError) as error:
        raise pytest.UsageError(f"--runtime {runtime_name(config)}: {error}") from error
    config.pluginmanager.register(guarding, "netmodes-guarding")
    rows = importlib.resources.files(_SUITES.name) / "requirements.toml"
    catalogue = config.stash[CATALOGUE] = requirements.load(rows)
    try:
        for id_ in config.getoption("requirement"):
            catalogue[id_]
        if config.getoption("fault"):
            config.stash[FAULT] = known_faults(config)[config.getoption("fault")]
    except (UnknownRequirement, UnknownFault, FaultError) as error:
        raise pytest.UsageError(str(error)) from error
    if not hasattr(config, "workerinput"):
        summary = Summary(
            runtime=runtime_name(config), catalogue=catalogue, recorder=config.stash[RECORDER]
        )
        config.pluginmanager.register(summary, "netmodes-summary")
    report_setup.register(
        config,
        runtime=runtime_name(config),
        catalogue=catalogue,
        recorder=config.stash[RECORDER],
        suites=_SUITES,
    )
    if not config.getoption("collectonly"):
        hooks.register(config, config.stash[RECORDER], report_setup.directory(config))


def known_faults(config: pytest.Config) -> Faults:
    """Every fault that comes with the harness, or with a plugin of this run.

    Raises `FaultError` for one that is declared wrongly.
    """
    from harness.faults.discovery import discover  # nobody else needs it

    return discover(config.stash[CATALOGUE], config.pluginmanager.get_plugins())


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what is tested, and where."""
    if not _concerned(config):
        return None
    where = "private namespaces" if sandbox.inside() else "none"
    fault = config.stash.get(FAULT, None)
    told = f"\nfault {fault.id}: {fault.about}" if fault else ""
    return (
        f"netmodes {__version__}: runtime {runtime_name(config)}, sandbox {where}, "
        f"Linux {platform.release()}{told}"
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what this worker has recorded to the controller."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["netmodes"] = session.config.stash[RECORDER].dump()


# --- requirements ----------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse a requirement that is not in the catalogue, while its test is collected."""
    if CATALOGUE in metafunc.config.stash:
        try:
            _required(metafunc.config, metafunc.definition)
        except UnknownRequirement as error:
            raise pytest.Collector.CollectError(f"{metafunc.definition.name}: {error}") from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name each test's requirements in its reports, and skip what the runtime does not claim.

    This is the only place where a test is skipped.
    """
    if CATALOGUE not in config.stash:
        return
    if wanted := set(config.getoption("requirement")):
        unwanted = [
            item for item in items if wanted.isdisjoint(row.id for row in _required(config, item))
        ]
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
    for item in items:
        required = _required(config, item)
        item.user_properties += properties(requirement.id for requirement in required)
        lacking = _lacking(config, required)
        if lacking:
            reason = f"{UNSUPPORTED}{runtime_name(config)} does not declare {', '.join(lacking)}"
            item.add_marker(pytest.mark.skip(reason=reason))


def _required(config: pytest.Config, node: pytest.Item) -> list[Requirement]:
    """The requirements that a test is marked with, each once; raises `UnknownRequirement`."""
    ids = dict.fromkeys(id_ for mark in node.iter_markers("requirement") for id_ in mark.args)
    return [config.stash[CATALOGUE][id_] for id_ in ids]


def _lacking(config: pytest.Config, required: list[Requirement]) -> list[str]:
    needed = frozenset[str]().union(*(requirement.features for requirement in required))
    claimed = config.stash[FEATURES]
    return sorted(needed - claimed)


def pytest_assertrepr_compare(
    config: pytest.Config, op: str, left: object, right: object
) -> list[str] | None:
    """Explain a matrix that is not as promised by its wrong cells only, and what befell them."""
    if op == "==" and isinstance(left, Matrix) and isinstance(right, Matrix):
        evidence = config.pluginmanager.get_plugin(hooks.NAME)
        if evidence is None:
            return explain(left, right)
        return explain(left, right, tell=partial(evidence.tell, left, right))
    return None
