"""Tests of a sandbox that cannot be entered: the error names the step, and nothing is changed."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from tests.support.programs import ALL_BUT_SETFCAP, confined, python, run

ENTER = """
import json, os, signal
from harness.sandbox import sandbox

def state():
    handlers = [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())]
    blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    fds = sorted(os.listdir("/proc/self/fd"))
    return [handlers, blocked, fds, os.readlink("/proc/self/ns/net")]

before = state()
try:
    code = sandbox.run(lambda: 0)
except sandbox.SandboxError as error:
    said = {"step": error.step, "errno": error.errno, "message": str(error)}
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        said["unchanged"] = state() == before
    print(json.dumps(said))
else:
    print("entered", code)
"""

REFUSALS: list[tuple[str, int, dict[str, Any]]] = [
    ("pid namespace", errno.ENOSPC, {"limits": {"pid": 0}}),
    ("mount namespace", errno.ENOSPC, {"limits": {"mnt": 0}}),
    ("network namespace", errno.ENOSPC, {"limits": {"net": 0}}),
    ("UTS namespace", errno.ENOSPC, {"limits": {"uts": 0}}),
    ("IPC namespace", errno.ENOSPC, {"limits": {"ipc": 0}}),
    ("cgroup namespace", errno.ENOSPC, {"limits": {"cgroup": 0}}),
    ("user namespace", errno.ENOSPC, {"limits": {"user": 0}, "without": ALL_BUT_SETFCAP}),
    ("id maps", errno.EPERM, {"without": range(41)}),
    ("private /proc", errno.EPERM, {"masked": ["/proc/sys"], "without": ALL_BUT_SETFCAP}),
]


@pytest.mark.parametrize(
    ("step", "number", "confinement"), REFUSALS, ids=[row[0] for row in REFUSALS]
)
def test_sandbox_error_names_the_refused_step(
    step: str, number: int, confinement: dict[str, Any]
) -> None:
    """If a step of entering a sandbox is refused, the error names the step.

    Nothing is changed then. A container with a masked /proc, for example, may not mount a new one.
    """
    done = run(confined(python(ENTER), **confinement))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == (step, number, True)
    assert said["message"].startswith(f"{step}: ")


def test_sandbox_starts_with_a_masked_sys() -> None:
    """A sandbox starts even if /sys is masked, because its own /sys is optional."""
    done = run(confined(python(ENTER), masked=["/sys/kernel"], without=ALL_BUT_SETFCAP))
    assert done.stdout == "entered 0\n"


def test_sandbox_starts_without_privileges() -> None:
    """An ordinary user can enter a sandbox, which has a user namespace.

    The variables USER and LOGNAME are kept.
    """
    source = """
import os
from harness.sandbox import namespaces, sandbox
print(namespaces.privileged(), flush=True)
def look():
    print(os.environ["USER"], os.environ["LOGNAME"], os.getuid(), namespaces.privileged())
    return 0
sandbox.run(look)
"""
    done = run(confined(python(source), without=ALL_BUT_SETFCAP))
    assert done.stdout == "False\nroot root 0 True\n"


def test_sandbox_require_refuses_outside_a_sandbox() -> None:
    """Outside a sandbox, `require` raises an error that says how to enter one."""
    source = """
from harness.sandbox import namespaces, sandbox
from pathlib import Path
try:
    print(sandbox.run(lambda: sandbox.require() or 0))
    namespaces.MARK.rename("/run/elsewhere")
    sandbox.require()
except sandbox.SandboxError as error:
    print(error)
"""
    done = run(
        python(f"from harness.sandbox import sandbox\nsandbox.run(lambda: exec({source!r}) or 0)")
    )
    assert done.stdout.startswith("0\nsandbox: this would change the machine itself")
    assert "netmodes doctor" in done.stdout


def test_sandbox_starts_from_any_directory() -> None:
    """A sandbox can be started in any working directory, even in `/`."""
    assert run(python(f"import os; os.chdir('/')\n{ENTER}")).stdout == "entered 0\n"
