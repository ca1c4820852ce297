"""Tests of system calls and their errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linux import syscalls as sys_


def take_back() -> None:
    """Try to regain a capability after all have been dropped."""
    sys_.capset(0)
    sys_.capset(0x1000)


REFUSED: dict[str, tuple[Callable[[], object], int, str]] = {
    "unshare": (lambda: sys_.unshare(0x1), errno.EINVAL, "unshare(0x1)"),
    "setns": (lambda: sys_.setns(-1, sys_.CLONE_NEWNET), errno.EBADF, "setns(-1, 0x40000000)"),
    "mount": (
        lambda: sys_.mount("tmpfs", "/nowhere", "tmpfs", sys_.MS_NODEV, "mode=755"),
        errno.ENOENT,
        "mount(tmpfs on /nowhere, type tmpfs, 0x4, mode=755)",
    ),
    "umount": (lambda: sys_.umount("/nowhere"), errno.ENOENT, "umount(/nowhere)"),
    "pivot_root": (
        lambda: sys_.pivot_root("/nowhere", "/"),
        errno.ENOENT,
        "pivot_root(/nowhere, /)",
    ),
    "prctl": (lambda: sys_.prctl(-1, 7), errno.EINVAL, "prctl(-1, 7)"),
    "capset": (take_back, errno.EPERM, "capset(0x1000)"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_error_of_system_call_has_its_errno_and_arguments(call: str) -> None:
    """The error of a system call has its errno, its arguments and the kernel's message."""
    ask, number, words = REFUSED[call]
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(OSError, match=re.escape(words)) as caught,
    ):
        executor.submit(ask).result(10)
    assert caught.value.errno == number
    assert str(caught.value) == f"[Errno {number}] {words}: {os.strerror(number)}"


def permitted() -> int:
    """Return the permitted capabilities of the calling thread, as in proc(5)."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm"))


def test_capset_drops_capabilities_of_the_calling_thread_only() -> None:
    """`capset` drops the effective and permitted capabilities of the calling thread only."""
    before = sys_.capget()
    assert before == permitted()
    kept = before & (1 << 12 | 1 << 38)  # CAP_NET_ADMIN, CAP_PERFMON
    with ThreadPoolExecutor(1) as executor:
        executor.submit(sys_.capset, kept).result(10)
        assert executor.submit(permitted).result(10) == kept != before
        assert executor.submit(sys_.capget).result(10) == kept
    assert permitted() == before
