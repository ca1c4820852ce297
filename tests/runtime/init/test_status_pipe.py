"""Tests of errors that a container's process reports before it executes the command."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from linux.netns import NetNS
from runtime.container.networking import ContainerNetworking
from runtime.engine import Engine
from runtime.errors import UnsupportedError, refused
from runtime.init.status_pipe import InitReport, send_error
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import nothing_left, until


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.ENOSPC, "/proc/sys/user"), (errno.EPERM, "CAP_SYS_ADMIN")],
)
def test_error_of_init_has_kernel_message_and_cause(number: int, cause: str) -> None:
    """An error of init has the kernel's message, a cause and a remedy.

    An error of the Python interpreter would not help the user.
    """
    reading, writing = os.pipe()
    with open(reading) as reader, open(writing, "w") as pipe:
        send_error(pipe.fileno(), OSError(number, "unshare(0x2e020000): the kernel refused"))
        with pytest.raises(UnsupportedError) as caught:
            InitReport(reader.fileno()).end()
    message = str(caught.value)
    assert message.startswith(
        "cannot start the container: unshare(0x2e020000): the kernel refused\n"
    )
    assert cause in caught.value.cause
    assert "netmodes doctor" in caught.value.remedy


def test_error_of_init_names_its_file() -> None:
    """An error of init names its file, if it has one."""
    error = refused("start it", FileNotFoundError(errno.ENOENT, "No such file", "/there"))
    assert str(error).startswith("cannot start it: No such file: '/there'\n")


def test_early_exit_of_init_is_reported_with_its_error(
    engine: Engine, lan: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a start is the one that pid 1 reported before its early exit, not ESRCH."""
    register = ContainerNetworking.register

    def late(networking: ContainerNetworking, found: ContainerRecord, netns: NetNS) -> None:
        until(lambda: not os.path.exists(f"/proc/{found.state.pid}"), "pid 1 has ended")
        register(networking, found, netns)

    monkeypatch.setattr(ContainerNetworking, "register", late)
    with nothing_left(root), pytest.raises(UnsupportedError, match="File exists: '/bin/sh'"):
        engine.run("base", FOR_EVER, network=lan, workdir="/bin/sh")
