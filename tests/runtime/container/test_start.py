"""The start of a container: pid 1, its descriptors, and errors before the command runs."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import CommandNotFoundError, InvalidError
from runtime.init import status_pipe
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import WITHIN, opened


def test_pid_is_reported_after_the_netns_is_entered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that enters the namespaces of that pid is never in those of the host."""
    found: list[str] = []
    original = status_pipe.InitReport.pid

    def pid(report: status_pipe.InitReport) -> int:
        number = original(report)
        found.append(os.readlink(f"/proc/{number}/ns/net"))
        return number

    monkeypatch.setattr(status_pipe.InitReport, "pid", pid)
    for _ in range(20):
        engine.run("base", FOR_EVER, network="none")
    assert len(found) == 20
    assert os.readlink("/proc/self/ns/net") not in found


def test_command_inherits_only_its_standard_streams(engine: Engine) -> None:
    """The command has no descriptor of the runtime's records, logs or pipes."""
    engine.run("base", FOR_EVER, name="web")
    assert engine.exec("web", ["ls", "/proc/2/fd"]).stdout.split() == [b"0", b"1", b"2"]


def test_pid_1_holds_only_its_log_and_exit_record(engine: Engine, root: Path) -> None:
    """Pipes of the start are closed once the command runs."""
    web = engine.run("base", FOR_EVER)
    directory = f"{root}/containers/{web.id}"
    wanted = {"/dev/null", "pipe", f"{directory}/log", f"{directory}/exit"}
    handle = os.pidfd_open(web.state.pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while (held := opened(web.state.pid)) != wanted and not poll.poll(1):
        assert held > wanted  # a socket that takes time to close
    os.close(handle)
    assert held == wanted


def test_missing_command_is_reported(engine: Engine) -> None:
    """The error names the command, and no container is left."""
    with pytest.raises(CommandNotFoundError, match="no-such-command"):
        engine.run("base", ["no-such-command"])
    assert engine.containers() == []


def test_failure_of_pid_1_before_the_command_is_reported(engine: Engine) -> None:
    """The error names the sysctl that the kernel does not have, and no container is left."""
    with pytest.raises(InvalidError, match=r"kernel\.no_such"):
        engine.run("base", FOR_EVER, sysctls={"kernel.no_such": "1"})
    assert engine.containers() == []


def test_stop_right_after_start_is_not_lost(engine: Engine) -> None:
    """The signal waits until pid 1 can pass it on, so the stop does not time out."""
    for _ in range(20):
        web = engine.run("base", FOR_EVER)
        assert engine.stop(web.id, timeout=WITHIN).state.exit_code == 128 + signal.SIGTERM
