"""Containers that are forked from a starter are no other than those of a plain caller."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.container import prefork as starter_module
from runtime.container.prefork import MESSAGE, Starter
from runtime.engine import Engine
from runtime.errors import CommandNotFoundError, InvalidError, UnsupportedError
from runtime.init import status_pipe
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.inspection import WITHIN, children, opened, until


@pytest.fixture
def starter(root: Path) -> Iterator[Starter]:
    """A starter of its own; `root` first, so that it sees what is mounted there."""
    with Starter.begin() as begun:
        yield begun


@pytest.fixture
def started(engine: Engine, root: Path, starter: Starter) -> Engine:
    """An engine with a starter, in the root of `engine`, which tidies up."""
    return Engine(root, starter=starter)


def _parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[1])


def test_pid_1_is_forked_from_it(started: Engine, starter: Starter) -> None:
    """And by it alone: nobody stands in between."""
    web = started.run("base", FOR_EVER)
    assert _parent(web.state.pid) == starter.pid


def test_its_namespaces_are_its_own(started: Engine, starter: Starter) -> None:
    """All of them, as those of any container."""
    web = started.run("base", FOR_EVER)
    for kind in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
        own, begun = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (web.state.pid, starter.pid))
        assert own != begun, kind


def test_a_pid_is_told_once_its_network_is_its_own(
    started: Engine, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever enters its namespaces by then is not let into the host's."""
    told: list[str] = []
    original = status_pipe.InitReport.pid

    def pid(report: status_pipe.InitReport) -> int:
        found = original(report)
        told.append(os.readlink(f"/proc/{found}/ns/net"))
        return found

    monkeypatch.setattr(status_pipe.InitReport, "pid", pid)
    for _ in range(20):
        started.run("base", FOR_EVER, network="none")
    assert len(told) == 20
    assert os.readlink(f"/proc/{starter.pid}/ns/net") not in told


def test_the_command_inherits_its_streams_only(started: Engine, root: Path) -> None:
    """No record, log or pipe of the runtime's reaches it by a descriptor."""
    started.run("base", FOR_EVER, name="web")
    assert started.exec("web", ["ls", "/proc/2/fd"]).stdout.split() == [b"0", b"1", b"2"]


def test_pid_1_holds_its_log_and_record_only(started: Engine, root: Path) -> None:
    """Nothing of the starter, and no socket that was to be closed when the command runs."""
    web = started.run("base", FOR_EVER)
    directory = f"{root}/containers/{web.id}"
    wanted = {"/dev/null", "pipe", f"{directory}/log", f"{directory}/exit"}
    handle = os.pidfd_open(web.state.pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while (held := opened(web.state.pid)) != wanted and not poll.poll(1):
        assert held > wanted  # the socket that takes its time
    os.close(handle)
    assert held == wanted


def test_what_keeps_a_command_from_running_is_told(started: Engine) -> None:
    """In the same words, and nothing is left."""
    with pytest.raises(CommandNotFoundError, match="no-such-command"):
        started.run("base", ["no-such-command"])
    assert started.containers() == []


def test_what_pid_1_cannot_do_is_told(started: Engine) -> None:
    """Before there is any command: here a sysctl that the kernel does not have."""
    with pytest.raises(InvalidError, match=r"kernel\.no_such"):
        started.run("base", FOR_EVER, sysctls={"kernel.no_such": "1"})
    assert started.containers() == []


def test_a_published_port_goes_on_when_a_network_is_connected(started: Engine) -> None:
    """What pid 1 keeps for the runtime is found there by the numbers that were written down."""
    started.network_create("more", subnet="10.99.0.0/24")
    started.run("base", FOR_EVER, name="web", publish=["8080:80"])
    assert started.network_connect("more", "web").state.ports


def test_the_ended_are_collected(started: Engine, starter: Starter) -> None:
    """A container that ended is no zombie of the starter's."""
    web = started.run("base", ["true"])
    started.wait(web.id)
    started.run("base", FOR_EVER)
    children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
    assert str(web.state.pid) not in children.read_text(encoding="ascii").split()


def test_containers_outlive_it(engine: Engine, started: Engine, starter: Starter) -> None:
    """They run on, for whoever looks after them."""
    web = started.run("base", FOR_EVER, name="web")
    starter.close()
    assert engine.inspect("web").running
    assert _parent(web.state.pid) != starter.pid


def _waiting(starter: Starter) -> int:
    """A handle on the pid 1 that waits to be told what to be."""
    until(lambda: len(children(starter.pid)) == 1, "it has been made")
    return os.pidfd_open(children(starter.pid).pop())


def test_one_that_is_not_wanted_ends(starter: Starter) -> None:
    """When the caller gives it up, or is no more."""
    pending = starter.prepare()
    handle = _waiting(starter)
    assert not select.select([handle], [], [], 0)[0]
    pending.close()
    assert select.select([handle], [], [], 0)[0]  # it has ended by then
    os.close(handle)


def test_one_that_nobody_tells_of_any_more_ends(starter: Starter) -> None:
    """Its starter was killed: the caller does not wait for its pid, and it not for the caller."""
    with starter.prepare() as pending:
        handle = _waiting(starter)
        pending._channel.recv(MESSAGE)  # as if it had not been told yet
        os.kill(starter.pid, signal.SIGKILL)
        with pytest.raises(UnsupportedError, match="starter has ended"):
            pending._pid()
    assert select.select([handle], [], [], WITHIN)[0]
    os.close(handle)


def test_without_it_a_start_fails_in_words(started: Engine, starter: Starter) -> None:
    """Somebody has killed it: the start that needs it says so and leaves nothing."""
    handle = os.pidfd_open(starter.pid)
    os.kill(starter.pid, signal.SIGKILL)
    select.select([handle], [], [])
    os.close(handle)
    with pytest.raises(UnsupportedError, match="starter has ended"):
        started.run("base", FOR_EVER)
    assert started.containers() == []


def test_it_ends_with_its_caller(root: Path) -> None:
    """By whatever death: here by SIGKILL."""
    (out, into), (gate, opener) = os.pipe(), os.pipe()
    caller = os.fork()
    if not caller:
        begun = Starter.begin()
        os.write(into, str(begun.pid).encode())
        os.read(gate, 1)  # once it has ended, nobody could get hold of it
        os.kill(os.getpid(), signal.SIGKILL)
    handle = os.pidfd_open(int(os.read(out, 16)))
    os.write(opener, b"!")
    for number in (out, into, gate, opener):
        os.close(number)
    os.waitpid(caller, 0)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    assert poll.poll(10_000)
    os.close(handle)


def test_a_kernel_without_clone3_takes_longer(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Two forks and unshare(2) make what it would have made at once."""
    begin = starter_module._BEGIN.replace(
        "serve({fd})",
        "import errno, runtime.container.prefork as s; s.clone3 = lambda _: (_ for _ in ()).throw("
        "OSError(errno.ENOSYS, 'no such call')); serve({fd})",
    )
    monkeypatch.setattr(starter_module, "_BEGIN", begin)
    with Starter.begin() as slow:
        engine = Engine(root, starter=slow)
        web = engine.run("base", FOR_EVER)
        assert web.state.pid > 0
        assert engine.exec(web.id, ["true"]).exit_code == 0
        engine.remove(web.id, force=True)


def test_one_that_cannot_come_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its exit code, and not waited for."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UnsupportedError, match="ended at once, with 1"):
        Starter.begin()


def test_one_that_cannot_be_begun_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the kernel has against it; nothing of it stays open."""
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("sys.executable", "/nowhere")
    with pytest.raises(UnsupportedError, match=r"begin a starter.*No such file"):
        Starter.begin()
    assert os.listdir("/proc/self/fd") == before


def test_a_stop_right_after_the_start_is_heard(started: Engine) -> None:
    """Its signal waits until pid 1 can pass it on: nobody waits for the stop's time-out."""
    for _ in range(20):
        web = started.run("base", FOR_EVER)
        assert started.stop(web.id, timeout=WITHIN).state.exit_code == 128 + signal.SIGTERM
