"""Hooks of a conformance run that load the requirements, check features and explain failed cells.

Only conformance runs register this module; no other run imports it.
"""

from __future__ import annotations

import gc
import platform
import warnings
from functools import partial
from typing import Final

import pytest

from harness import __version__
from harness.adapters import registry
from harness.adapters.registry import UnknownRuntime
from harness.faults.fault import FaultCatalogue, FaultError, UnknownFault
from harness.faults.selection import FAULT, runtime_name
from harness.model import matrix, requirements
from harness.model.features import sentence
from harness.model.matrix import Matrix, explain
from harness.model.requirements import Catalogue, Requirement, UnknownRequirement
from harness.plugin import SUITES, diagnosis, leaks, options, reporting
from harness.plugin.summary import Summary
from harness.report.build import Collected
from harness.report.recorder import (
    CONTRADICTED,
    HELD,
    RECORDER,
    UNSUPPORTED,
    NodeIds,
    Recorder,
    properties,
)
from harness.sandbox import sandbox

CATALOGUE = pytest.StashKey[Catalogue]()
FEATURES = pytest.StashKey[frozenset[str]]()
_GARBAGE: Final = 20_000
"""Threshold of the garbage collector's youngest generation."""


def pytest_configure(config: pytest.Config) -> None:
    """Load the catalogue and the adapter, and register the other plugins of a conformance run.

    Raises `pytest.UsageError`.
    """
    config.stash[RECORDER] = Recorder()
    try:
        config.stash[FEATURES] = registry.find(runtime_name(config)).features
    except UnknownRuntime as error:
        raise pytest.UsageError(f"--runtime {runtime_name(config)}: {error}") from error
    config.pluginmanager.register(leaks, "netmodes-guarding")
    catalogue = config.stash[CATALOGUE] = requirements.of_suites()
    try:
        for id_ in config.getoption("requirement"):
            catalogue[id_]
        if config.getoption("fault"):
            config.stash[FAULT] = known_faults(config)[config.getoption("fault")]
    except (UnknownRequirement, UnknownFault, FaultError) as error:
        raise pytest.UsageError(str(error)) from error
    recorder = config.stash[RECORDER]
    node_ids = NodeIds(config.rootpath, SUITES)
    tests = Collected(node_ids)
    if not hasattr(config, "workerinput"):
        summary = Summary(
            runtime=runtime_name(config), catalogue=catalogue, recorder=recorder, tests=tests
        )
        config.pluginmanager.register(summary, "netmodes-summary")
    reporting.register(
        config,
        runtime=runtime_name(config),
        catalogue=catalogue,
        recorder=recorder,
        node_ids=node_ids,
        tests=tests,
        suites=SUITES,
    )
    if config.getoption("collectonly"):
        _unload_hypothesis(config)
    else:
        if options.non_default(config, "profile") and not hasattr(config, "workerinput"):
            from harness.plugin import progress  # few runs need it

            progress.register(config)
        diagnosis.register(config, config.stash[RECORDER], reporting.directory(config))


def _unload_hypothesis(config: pytest.Config) -> None:
    # At the end its plugin imports hypothesis for an empty summary, a third of the total time.
    plugin = config.pluginmanager.get_plugin("hypothesispytest")
    if plugin is not None:
        config.pluginmanager.unregister(plugin)


def known_faults(config: pytest.Config) -> FaultCatalogue:
    """Return every fault that the harness or a pytest plugin of this run declares.

    Raises `FaultError` for an invalid declaration.
    """
    from harness.faults.fault import discover  # few runs need it

    return discover(config.stash[CATALOGUE], config.pluginmanager.get_plugins())


def pytest_report_header(config: pytest.Config) -> str:
    """Return the header of the run: runtime, sandbox, kernel and, if one is injected, the fault."""
    where = "private namespaces" if sandbox.inside() else "none"
    fault = config.stash.get(FAULT, None)
    name = runtime_name(config)
    details = f"\nfault {fault.id}: {fault.about}" if fault else ""
    if provenance := registry.provenance(registry.load(name)):
        details = f"\n{provenance}{details}"
    kernel = f"Linux {platform.release()}"
    return f"netmodes {__version__}: runtime {name}, sandbox {where}, {kernel}{details}"


def pytest_keyboard_interrupt() -> None:
    """Ignore unclosed sockets, so that an interrupted run keeps its own exit code and message.

    Ctrl-C and the debugger interrupt a run. An interrupted test does not close its sockets. If
    warnings are errors, each open socket would end the run with a traceback.
    """
    warnings.filterwarnings("ignore", category=pytest.PytestUnraisableExceptionWarning)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Collect garbage less often, and exclude the tests, which stay until the end of the run.

    With four workers, a full collection takes a second of processor time. It also dirties memory
    pages of the tests in every forked process.
    """
    gc.freeze()
    gc.set_threshold(_GARBAGE)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the records of this worker process to the controlling process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["netmodes"] = session.config.stash[RECORDER].dump()


# --- requirements ----------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse to collect a test whose requirement is not in the catalogue."""
    try:
        _required(metafunc.config, metafunc.definition)
    except UnknownRequirement as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.name}: {error}") from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add each test's requirements to its reports, and skip tests that need an undeclared feature.

    This hook checks the features that the requirements of a test need. The scene of the test checks
    the features that its plan needs (`harness.model.features`).
    """
    if wanted := set(config.getoption("requirement")):
        unwanted = [
            item for item in items if wanted.isdisjoint(row.id for row in _required(config, item))
        ]
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
    if hasattr(config, "workerinput"):  # a long test that starts last would run alone
        items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        required = _required(config, item)
        item.user_properties += properties(requirement.id for requirement in required)
        lacking = _lacking(config, required)
        if lacking:
            reason = f"{UNSUPPORTED}{sentence(runtime_name(config), lacking)}"
            item.add_marker(pytest.mark.skip(reason=reason))


def _required(config: pytest.Config, node: pytest.Item) -> list[Requirement]:
    """Return the requirements of a test without repetitions. Raises `UnknownRequirement`."""
    ids = dict.fromkeys(id_ for mark in node.iter_markers("requirement") for id_ in mark.args)
    return [config.stash[CATALOGUE][id_] for id_ in ids]


def _lacking(config: pytest.Config, required: list[Requirement]) -> frozenset[str]:
    needed = frozenset[str]().union(*(requirement.features for requirement in required))
    claimed = config.stash[FEATURES]
    return needed - claimed


def pytest_assertrepr_compare(
    config: pytest.Config, op: str, left: object, right: object
) -> list[str] | None:
    """Explain why two matrices are unequal: list the wrong cells, each with its explanation."""
    if op == "==" and isinstance(left, Matrix) and isinstance(right, Matrix):
        wrong, held = matrix.requirements(left, right)
        found: list[tuple[str, object]] = [(CONTRADICTED, id_) for id_ in wrong]
        found += [(HELD, id_) for id_ in held]
        config.stash[RECORDER].compared = found
        evidence = config.pluginmanager.get_plugin(diagnosis.NAME)
        if evidence is None:
            return explain(left, right)
        return explain(left, right, tell=partial(evidence.tell, left, right))
    return None
