"""The pytest plugin of netmodes: hooks, options and fixtures of a conformance run.

Once netmodes is installed, every pytest run of its environment loads the plugin. The plugin does
nothing and imports almost nothing unless the run is a conformance run. A run is a conformance run
if the ini option `netmodes` is set, or if the command line names a runtime or the suites of
netmodes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.plugin import options

if TYPE_CHECKING:
    from harness.sandbox.doctor import Finding
    from harness.sandbox.sandbox import Waiter

__all__ = ["fixtures", "marks", "progress", "workers"]

WAITER: pytest.StashKey[Waiter] = pytest.StashKey()
"""The process outside of the sandbox that waits for the run inside."""
SUITES = Path(__file__).parents[2] / "suites"
_INFORMATIONAL = (
    "collectonly",
    "setupplan",
    "help",
    "version",
    "markers",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
)
"""Options with which pytest prints information and runs no test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a conformance run to pytest's command line."""
    options.add(parser)


def _is_conformance_run(config: pytest.Config) -> bool:
    if config.getini("netmodes") or config.getoption("runtime"):
        return True
    for argument in config.args:
        where, _, _ = argument.partition("::")
        if config.getoption("pyargs") and where.partition(".")[0] == SUITES.name:
            return True
        if (config.invocation_params.dir / where).resolve().is_relative_to(SUITES):
            return True
    return False


def pytest_configure(config: pytest.Config) -> None:
    """Load the rest of the plugin in a conformance run."""
    config.addinivalue_line(
        "markers", "requirement(*ids): ids of the requirements that the test checks"
    )
    config.addinivalue_line("markers", "long: the test takes seconds; workers start it first")
    if not _is_conformance_run(config):
        return
    from harness.plugin import fixtures, requirements

    config.pluginmanager.register(fixtures, "netmodes-fixtures")
    config.pluginmanager.register(requirements, "netmodes-conformance")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return the number of workers for `-n auto`, unless xdist's environment variable sets it."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not _is_conformance_run(config):
        return None  # xdist decides
    from harness.plugin import workers

    return workers.default_number()


@pytest.hookimpl(specname="pytest_cmdline_main", tryfirst=True)
def pytest_join_path_options(config: pytest.Config) -> int | None:
    """Keep pytest from taking the value of an option such as `--report DIR` for the path of tests.

    If the folder exists when the run starts, this hook starts pytest anew with joined options.
    Pytest then looks for its settings in the right place. If the run makes the folder,
    pytest-xdist's workers would be misled when they parse the command line again, so the stored
    command line is joined too.
    """
    given = config.invocation_params
    words = options.joined_arguments(config)
    if options.is_misled(config):
        return pytest.main(list(words), plugins=given.plugins)
    config.invocation_params = pytest.Config.InvocationParams(
        args=words, plugins=given.plugins, dir=given.dir
    )
    return None


# --- the sandbox -----------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Move the whole run into a sandbox before any worker is started.

    On a machine that cannot run live tests, the run ends here. The error has the reason and the
    remedy.
    """
    if options.is_misled(config):
        return (yield)
    here, elsewhere = _workers(config)
    if elsewhere and _is_conformance_run(config):
        if here or config.getoption("sandbox") == "always":
            raise pytest.UsageError(
                "workers on other machines need a network, and the sandbox has none: leave out "
                "--sandbox=always, and start workers of this machine by ssh too (docs/gate.md)"
            )
    elif _wants_sandbox(config):
        from harness.sandbox import doctor, sandbox

        try:
            config.stash[WAITER] = sandbox.enter()
        except sandbox.SandboxError as error:
            raise pytest.UsageError(_refusal(doctor.refusal(error))) from error
        for missing in doctor.essentials():
            raise pytest.UsageError(_refusal(missing))
    return (yield)


def _workers(config: pytest.Config) -> tuple[bool, bool]:
    """Return whether tests run on this machine, and whether on other machines."""
    specs = config.getoption("tx", default=None)
    if not specs or hasattr(config, "workerinput") or config.getoption("numprocesses"):
        return True, False
    from harness.plugin import workers

    return workers.gateways(specs, config.getoption("px", default=None) or [])


def _wants_sandbox(config: pytest.Config) -> bool:
    choice = config.getoption("sandbox")
    if choice == "never" or sys.platform != "linux" or hasattr(config, "workerinput"):
        return False
    if any(config.getoption(name, default=False) for name in _INFORMATIONAL):
        return False
    if choice == "always":
        return True
    if not _is_conformance_run(config):
        return False
    from harness.sandbox import sandbox

    return not sandbox.inside()


def _refusal(finding: Finding) -> str:
    return (
        f"this machine cannot run live tests: {finding}. Run `netmodes doctor` for all checks, "
        "or pass --sandbox=never to run only the tests that need no sandbox"
    )
