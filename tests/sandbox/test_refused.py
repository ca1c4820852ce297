"""Where the machine refuses, the caller goes on as if nothing had been tried, and is told why."""

from __future__ import annotations

import errno
import json

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

LIMITS = {
    "pid": "pid namespace",
    "mnt": "mount namespace",
    "net": "network namespace",
    "uts": "UTS namespace",
    "ipc": "IPC namespace",
    "cgroup": "cgroup namespace",
}


@pytest.mark.parametrize(("kind", "step"), LIMITS.items())
def test_sandbox_error_names_the_refused_namespace(kind: str, step: str) -> None:
    """The error names the namespace that cannot be created, and no resource is left."""
    done = run(confined(python(ENTER), limits={kind: 0}))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == (step, errno.ENOSPC, True)
    assert said["message"].startswith(f"{step}: ")


def test_sandbox_error_names_the_refused_user_namespace() -> None:
    """Without privileges the kernel refuses the user namespace first."""
    done = run(confined(python(ENTER), limits={"user": 0}, without=ALL_BUT_SETFCAP))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == (
        "user namespace",
        errno.ENOSPC,
        True,
    )


def test_sandbox_error_names_the_refused_id_map() -> None:
    """An id map that the kernel refuses ends the attempt outside and inside."""
    done = run(confined(python(ENTER), without=range(41)))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == ("id maps", errno.EPERM, True)


def test_sandbox_error_names_a_masked_proc() -> None:
    """In a container with a masked /proc the kernel refuses to mount a new one."""
    done = run(confined(python(ENTER), masked=["/proc/sys"], without=ALL_BUT_SETFCAP))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == ("private /proc", errno.EPERM, True)


def test_sandbox_starts_with_a_masked_sys() -> None:
    """An optional part of the sandbox may be missing."""
    done = run(confined(python(ENTER), masked=["/sys/kernel"], without=ALL_BUT_SETFCAP))
    assert done.stdout == "entered 0\n"


def test_sandbox_starts_without_privileges() -> None:
    """An ordinary user enters by a user namespace and keeps USER and LOGNAME."""
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
    """Outside a sandbox, `require` raises an error that names the way into one."""
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
    """The caller's working directory may be `/`."""
    assert run(python(f"import os; os.chdir('/')\n{ENTER}")).stdout == "entered 0\n"
