"""Attacks by system calls that Docker's default profile denies: each fails in a container."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable

import pytest

from harness.sandbox import sandbox
from linux.syscalls import CLONE_NEWUSER, libc
from runtime.engine import Engine
from runtime.init import seccomp
from runtime.init.security import DEFAULT_CAPABILITIES
from tests.runtime.conftest import FOR_EVER

_SYS_ADMIN = 1 << 21
_USER_KEYRING = -4
_CALLS: dict[str, Callable[[], int]] = {
    "unshare": lambda: libc.unshare(CLONE_NEWUSER),
    "clone": lambda: libc.syscall(56, CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0),
    "add_key": lambda: libc.syscall(248, 0, 0, 0, 0, 0),
    "keyctl": lambda: libc.syscall(250, 0, _USER_KEYRING, 0),
    "io_uring_setup": lambda: libc.syscall(425, 1, 0),
    "userfaultfd": lambda: libc.syscall(323, 1),
    "socket": lambda: libc.socket(40, 1, 0),
}
"""System calls by their numbers on x86-64. None of them changes anything outside the process."""


def _errno(call: Callable[[], int], capabilities: int | None) -> int:
    """Return the errno of a call in a child that has the filter of a container; 0 for success.

    Without `capabilities` the child has no filter.
    """
    sandbox.require()
    child = os.fork()
    if not child:
        try:
            if capabilities is not None:
                seccomp.load(seccomp.program(capabilities))
            os._exit(ctypes.get_errno() if call() < 0 else 0)
        finally:
            os._exit(255)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("name", _CALLS)
def test_filter_denies_the_call(name: str) -> None:
    """The filter refuses calls that reach the host's keys or kernel code with a bad history."""
    assert _errno(_CALLS[name], None) != errno.EPERM
    assert _errno(_CALLS[name], DEFAULT_CAPABILITIES) == errno.EPERM
    always = name not in ("unshare", "clone")
    assert (_errno(_CALLS[name], _SYS_ADMIN) == errno.EPERM) == always


@pytest.mark.parametrize("user", ["", "1000"])
def test_start_and_exec_load_the_filter(engine: Engine, user: str) -> None:
    """The command of a container and of `exec` runs with the filter (proc_pid_status(5))."""
    command = ["grep", "Seccomp:", "/proc/self/status"]
    made = engine.run("base", command, network="none", user=user)
    engine.wait(made.id)
    assert [entry.data for entry in engine.logs(made.id)] == [b"Seccomp:\t2\n"]
    engine.run("base", FOR_EVER, name="web", network="none")
    assert engine.exec("web", command, user=user).stdout == b"Seccomp:\t2\n"


def test_container_cannot_make_a_user_namespace(engine: Engine) -> None:
    """A user namespace in the container could mount the cgroups of the container's caller."""
    engine.run("base", FOR_EVER, name="web", network="none")
    done = engine.exec("web", ["unshare", "-U", "true"])
    assert done.exit_code != 0
    assert b"not permitted" in done.stderr
