"""Tests of a container's life cycle, from its creation to its removal without remains."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from linux.netns import NetNS
from linux.proc import process_born
from runtime.engine import Engine
from runtime.errors import (
    CommandNotFoundError,
    ConflictError,
    InvalidError,
    MydockerError,
    NotFoundError,
)
from runtime.init import status_pipe
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import (
    children,
    everything,
    family,
    links,
    namespace,
    nothing_left,
    processes,
    tables,
    until,
)

MODES = ["bridge", "none", "host", "container:base0"]


@pytest.mark.parametrize("mode", MODES)
def test_removed_container_leaves_no_resources(engine: Engine, root: Path, mode: str) -> None:
    """A removed container leaves no link, address, rule, mount, process, descriptor or file."""
    engine.run("base", FOR_EVER, name="base0")  # creates the default network, which stays
    with nothing_left(root):
        found = engine.run("base", FOR_EVER, network=mode)
        engine.exec(found.id, ["sh", "-c", "echo x > /x; sleep 1000 &"])
        engine.remove(found.id, force=True)


def test_teardown_restores_the_host(root: Path, host: NetNS) -> None:
    """Teardown restores bridge, rules and ip_forward as before the first container."""
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    forward.write_text("0")
    Engine(root)
    before = everything(root)
    engine = Engine(root)
    engine.run("base", FOR_EVER)
    engine.network_create("lan", ipv6=True)
    assert forward.read_text() == "1\n"
    assert tables()
    engine.teardown()
    until(lambda: family(root) <= before.processes, "the processes have ended")
    after = everything(root)
    assert (after.network, after.tables, after.mounts) == (
        before.network,
        before.tables,
        before.mounts,
    )
    assert forward.read_text() == "0\n"
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "0\n"


def test_restarted_container_keeps_files_and_gets_a_new_netns(engine: Engine) -> None:
    """A restarted container keeps its files and gets a new netns.

    The container gets the lowest free address.
    """
    web = engine.run("base", FOR_EVER, name="web")
    engine.exec("web", ["sh", "-c", "echo kept > /kept"])
    before = namespace(web, "mnt")
    engine.stop("web")
    engine.run("base", FOR_EVER, name="other")  # takes the address that web had
    web = engine.start("web")
    assert namespace(web, "mnt") != before
    assert engine.exec("web", ["cat", "/kept"]).stdout == b"kept\n"
    assert web.state.endpoints[0].address == "172.17.0.2/16"
    assert b"172.17.0.2\t" in engine.exec("web", ["cat", "/etc/hosts"]).stdout


@pytest.mark.parametrize(
    ("command", "sysctls", "error", "reason"),
    [
        (["no-such-command"], {}, CommandNotFoundError, "no-such-command"),
        (FOR_EVER, {"kernel.no_such": "1"}, InvalidError, r"kernel\.no_such"),
    ],
    ids=["command", "sysctl"],
)
def test_failed_start_is_reported_and_leaves_no_container(
    engine: Engine,
    command: list[str],
    sysctls: dict[str, str],
    error: type[MydockerError],
    reason: str,
) -> None:
    """A failed start leaves no container, and its error names the cause.

    The cause is a missing command, or a sysctl that the kernel does not have.
    """
    with pytest.raises(error, match=reason):
        engine.run("base", command, sysctls=sysctls)
    assert engine.containers() == []


def test_pid_is_reported_after_the_netns_is_entered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that enters the namespaces of a reported pid never enters the host's netns."""
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


def test_created_container_has_no_process_or_address(engine: Engine) -> None:
    """A created container has no process and no address until it is started."""
    made = engine.create("base", FOR_EVER, name="web")
    assert (made.state.status, made.state.pid, made.state.endpoints) == ("created", 0, ())
    assert engine.start("web").running


def test_wait_returns_the_exit_code_of_the_command(engine: Engine) -> None:
    """`wait` returns the command's exit code, or 128 plus the signal that ended it."""
    found = engine.run("base", ["sh", "-c", "exit 7"])
    assert engine.wait(found.id) == 7
    assert engine.inspect(found.id).state.exit_code == 7
    found = engine.run("base", ["sh", "-c", "kill -USR1 $$"])
    assert engine.wait(found.id) == 128 + signal.SIGUSR1


def test_auto_remove_container_is_removed_after_its_end(engine: Engine, root: Path) -> None:
    """The next mydocker call removes an auto-remove container after its end.

    The call that waits for the end gets the exit code.
    """
    engine.run("base", FOR_EVER)
    with nothing_left(root):
        found = engine.run("base", ["sh", "-c", "exit 4"], auto_remove=True)
        assert engine.wait(found.id) == 4
    with pytest.raises(NotFoundError):
        engine.inspect(found.id)


def test_container_with_killed_pid_1_has_exit_code_137(engine: Engine) -> None:
    """A container whose pid 1 was killed has the status exited and the exit code 137.

    Its address is free again, and its veth pair is gone.
    """
    web = engine.run("base", FOR_EVER, name="web")
    os.kill(web.state.pid, signal.SIGKILL)
    until(lambda: process_born(web.state.pid) == 0, "pid 1 is gone")
    seen = engine.inspect("web").state
    assert (seen.status, seen.exit_code, seen.endpoints) == ("exited", 137, ())
    assert web.state.endpoints[0].veth not in links()
    assert engine.run("base", FOR_EVER).state.endpoints[0].address == "172.17.0.1/16"


def test_removal_of_a_running_container_needs_force(engine: Engine) -> None:
    """Removal of a running container needs force; a second removal fails."""
    engine.run("base", FOR_EVER, name="web")
    with pytest.raises(ConflictError, match="running"):
        engine.remove("web")
    engine.remove("web", force=True)
    with pytest.raises(NotFoundError, match="web"):
        engine.remove("web")


def test_pid_1_reaps_orphans(engine: Engine) -> None:
    """Pid 1 reaps orphaned processes, even if many exit at the same time.

    A zombie keeps its directory in /proc until its parent has read its exit code.
    """
    web = engine.run("base", FOR_EVER, name="web")
    command = children(web.state.pid)
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000000 & done"
    assert engine.exec("web", ["sh", "-c", script]).exit_code == 0
    until(lambda: len(children(web.state.pid)) == 9, "pid 1 has adopted the eight")
    orphans = children(web.state.pid) - command
    for orphan in orphans:
        os.kill(orphan, signal.SIGKILL)
    until(lambda: not orphans & processes(), "the eight are reaped")
    assert children(web.state.pid) == command
    assert engine.inspect("web").running


def test_containers_are_listed_newest_first(engine: Engine) -> None:
    """The list has all containers or only the running ones, the newest first."""
    engine.run("base", FOR_EVER, name="one")
    engine.run("base", FOR_EVER, name="two")
    engine.stop("one")
    assert [item.name for item in engine.containers()] == ["two", "one"]
    assert [item.name for item in engine.containers(everything=False)] == ["two"]
