"""Tests of imported modules: a run imports only the needed ones, and some need no Linux."""

from __future__ import annotations

import pytest

from tests.support.programs import ROOT, python, run

LOADED = """
import sys
import pytest

class Tell:
    def pytest_unconfigure(self):
        print("\\nLOADED", *sorted(sys.modules))

sys.exit(pytest.main(["-p", "harness.plugin", "-q", *sys.argv[1:]], plugins=[Tell()]))
"""


def loaded(*arguments: str) -> set[str]:
    """Return the modules that a pytest run with these arguments has imported."""
    done = run(python(LOADED, *arguments))
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:])


def test_unrelated_run_imports_only_the_options(pytester: pytest.Pytester) -> None:
    """A run that does not use netmodes imports only the module with its options.

    pytest loads the plugin wherever netmodes is installed, so an unrelated run must not slow down.
    """
    pytester.makepyfile("def test_passes(): pass")
    own = {name for name in loaded() if name.partition(".")[0] in {"harness", "linux", "runtime"}}
    assert own == {
        "harness",
        "harness.plugin",
        "harness.plugin.options",
        "harness.testbench",
        "harness.testbench.profiles",
    }


def test_collecting_suites_imports_no_hypothesis() -> None:
    """Collecting the suites does not import Hypothesis, which would take a third of the time.

    The property suites import Hypothesis when they run.
    """
    seen = loaded("--collect-only", "--rootdir", str(ROOT), str(ROOT / "suites" / "properties"))
    assert "suites.properties.test_histories" in seen
    assert not [name for name in seen if name.partition(".")[0] == "hypothesis"]


FOREIGN = """
import os, select, signal, socket, sys

for module, prefixes in (
    (os, ("pidfd_", "eventfd", "memfd_", "setns", "unshare", "splice", "O_PATH", "sched_getaff")),
    (socket, ("AF_NETLINK", "AF_PACKET", "NETLINK_", "PACKET_", "SOCK_CLOEXEC", "SO_BINDTODEV")),
    (signal, ("sigtimedwait", "sigwaitinfo", "SIGPWR", "SIGSTKFLT")),
    (select, ("epoll", "EPOLL")),
):
    for name in dir(module):
        if name.startswith(prefixes):
            delattr(module, name)
sys.platform = "darwin"

import harness.cli.main, harness.plugin.fixtures, harness.plugin
from harness.adapters import registry

print(registry.find("mydocker").name)
"""


def test_modules_load_without_linux() -> None:
    """The plugin, the fixtures, the commands and the adapters can be imported without Linux."""
    done = run(python(FOREIGN))
    assert done.stdout == "mydocker\n", done.stderr
