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
def test_a_refused_namespace_is_named(kind: str, step: str) -> None:
    """Each namespace that cannot be made is an error that names it and leaves nothing."""
    done = run(confined(python(ENTER), limits={kind: 0}))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == (step, errno.ENOSPC, True)
    assert said["message"].startswith(f"{step}: ")


def test_a_refused_user_namespace_is_named() -> None:
    """Without privileges it is the user namespace that is refused first."""
    done = run(confined(python(ENTER), limits={"user": 0}, without=ALL_BUT_SETFCAP))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == (
        "user namespace",
        errno.ENOSPC,
        True,
    )


def test_a_refused_id_map_is_named() -> None:
    """A map that the kernel does not accept ends the attempt outside and inside."""
    done = run(confined(python(ENTER), without=range(41)))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == ("id maps", errno.EPERM, True)


def test_a_masked_proc_is_named() -> None:
    """In a container whose /proc is masked the kernel shows no new one: that is the error."""
    done = run(confined(python(ENTER), masked=["/proc/sys"], without=ALL_BUT_SETFCAP))
    said = json.loads(done.stdout)
    assert (said["step"], said["errno"], said["unchanged"]) == ("private /proc", errno.EPERM, True)


def test_a_masked_sys_is_no_hindrance() -> None:
    """What is only good to have may be missing."""
    done = run(confined(python(ENTER), masked=["/sys/kernel"], without=ALL_BUT_SETFCAP))
    assert done.stdout == "entered 0\n"


def test_no_privilege_is_needed() -> None:
    """An ordinary user gets in by a user namespace, and keeps the name by which files are found."""
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


def test_what_changes_the_machine_can_ask_first() -> None:
    """`require` refuses outside of a sandbox and says how to get into one."""
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


def test_it_works_from_any_directory() -> None:
    """The directory in which the caller is needs no place of its own."""
    assert run(python(f"import os; os.chdir('/')\n{ENTER}")).stdout == "entered 0\n"
