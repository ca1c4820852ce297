"""The machine in the middle: a process of its own, which takes everything along when it goes."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from harness.world.host import HOSTNAME, Host, HostDied, quiet_fork
from linux import rtnl
from linux.netlink import Netlink, NetlinkError
from tests.processes import family
from tests.programs import confined, python
from tests.programs import run as run_program

RESOLVER = "203.0.113.53"
WITHIN = 10.0
"""Seconds in which whatever is waited for must happen, on the slowest machine."""
KINDS = ("mnt", "net", "pid", "uts", "ipc", "cgroup")


def started() -> Host:
    """A host, without a world around it."""
    return Host.start(resolver=RESOLVER, hosts={"localhost": "127.0.0.1", HOSTNAME: "127.0.1.1"})


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host to look at and to call, shared by the tests that do not end it."""
    running = started()
    yield running
    running.stop()


@pytest.fixture
def doomed() -> Iterator[Host]:
    """A host of the test's own, to be ended."""
    running = started()
    yield running
    running.stop()


def members(host: Host) -> list[int]:
    """Every process in the host's pid namespace, by its pid here."""
    return [pid for pid in _pids() if _namespace(pid) == host.namespace("pid")]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _namespace(pid: int) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):  # it has gone, or is going
        status = os.stat(f"/proc/{pid}/ns/pid")
        return status.st_dev, status.st_ino
    return None


# --- what it is like inside ---------------------------------------------------------


def _look() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "namespaces": {kind: os.stat(f"/proc/1/ns/{kind}").st_ino for kind in KINDS},
        "hostname": socket.gethostname(),
        "cwd": os.getcwd(),
        "open": {
            number: os.readlink(f"/proc/1/fd/{number}") for number in os.listdir("/proc/1/fd")
        },
    }


def test_everything_is_its_own(host: Host) -> None:
    """Init is pid 1, the server pid 2, nobody else is there, and each namespace is another one."""
    seen = host.call(_look)
    assert (seen["pid"], seen["parent"], seen["processes"]) == (2, 1, [1, 2])
    assert (seen["hostname"], seen["cwd"]) == (HOSTNAME, "/")
    for kind in KINDS:
        inside, ours = host.namespace(kind)[1], os.stat(f"/proc/self/ns/{kind}").st_ino
        assert seen["namespaces"][kind] == inside != ours  # type: ignore[index] # a dict of them
    assert host.netns.id == host.namespace("net")


def test_the_terminals_signals_do_not_reach_it(host: Host) -> None:
    """It is in a session of its own: Ctrl-C is for who started it."""
    assert os.getsid(host.pid) == host.pid != os.getsid(0)


def test_it_has_nothing_of_ours_open(host: Host, tmp_path: Path) -> None:
    """No descriptor of the process that started it lives on inside."""
    with (tmp_path / "ours").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        other = started()
        try:
            held = {number: where.partition(":")[0] for number, where in _open(other).items()}
        finally:
            other.stop()
    assert held == {"0": "/dev/null", "1": "/run/netmodes/host.log", "2": "/run/netmodes/host.log"}


def _open(host: Host) -> dict[str, str]:
    seen = host.call(_look)["open"]
    assert isinstance(seen, dict)
    return seen


def test_names_are_the_worlds(host: Host) -> None:
    """resolv.conf, hosts and hostname are the world's; what else is in /etc is the machine's."""
    said = host.run(["cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]).stdout
    assert (
        said == f"nameserver {RESOLVER}\n127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}\n{HOSTNAME}\n"
    )
    assert host.run(["cat", "/etc/passwd"]).stdout == Path("/etc/passwd").read_text()


def test_what_is_written_to_etc_stays_inside() -> None:
    """A runtime may change /etc as it likes: the machine's, and another host's, is as it was."""
    before = {path.name: path.stat().st_mtime_ns for path in Path("/etc").iterdir()}
    one, other = started(), started()
    try:
        script = "echo nameserver 127.0.0.1 > /etc/resolv.conf; rm /etc/passwd; mkdir /etc/new"
        assert one.run(["sh", "-c", script]).returncode == 0
        assert one.run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 127.0.0.1\n"
        assert one.run(["ls", "/etc/new"]).returncode == 0
        assert other.run(["cat", "/etc/resolv.conf"]).stdout == f"nameserver {RESOLVER}\n"
        assert other.run(["ls", "/etc/new"]).returncode != 0
    finally:
        one.stop()
        other.stop()
    assert {path.name: path.stat().st_mtime_ns for path in Path("/etc").iterdir()} == before


# --- call ---------------------------------------------------------------------------


def _add(one: int, *, other: int) -> int:
    return one + other


def test_a_call_returns_what_the_function_returns(host: Host) -> None:
    """Arguments go in, by place and by name, and the result comes out, however large."""
    assert host.call(_add, 1, other=2) == 3
    assert host.call(bytes, 3_000_000) == bytes(3_000_000)


class Picky(Exception):
    """An exception that cannot be made from its own arguments, as many cannot."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def _raise(what: str) -> NoReturn:
    match what:
        case "value":
            raise ValueError("of mine")
        case "netlink":
            raise NetlinkError(errno.ENODEV, "remove link x", "not mine")
        case "picky":
            raise Picky("this", "that")
        case "lambda":
            raise ValueError(lambda: None)
        case "exit":
            sys.exit(7)
        case _:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("value", ValueError, "of mine"),
        ("netlink", NetlinkError, "[Errno 19] remove link x: No such device (not mine)"),
        ("picky", RuntimeError, "Picky: this and that"),
        ("lambda", RuntimeError, "ValueError: <function _raise.<locals>.<lambda> at"),
        ("exit", RuntimeError, "SystemExit: 7"),
        ("interrupt", RuntimeError, "KeyboardInterrupt: "),
    ],
)  # fmt: skip
def test_an_exception_crosses_with_its_story(
    host: Host, what: str, kind: type[Exception], said: str
) -> None:
    """What is raised there is raised here, and where it was raised is told with it."""
    with pytest.raises(kind) as caught:
        host.call(_raise, what)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(said)
    (note,) = caught.value.__notes__
    assert note.startswith("raised inside the host:\nTraceback")
    assert "in _raise" in note
    assert host.call(_add, 1, other=1) == 2


def _socket() -> socket.socket:
    return socket.socket()


def _unknown_here() -> Callable[[], int]:
    return _add_later


def _add_later() -> int:
    return 0


def test_what_cannot_travel_is_told_and_nothing_breaks(host: Host) -> None:
    """A result, an argument or a function that cannot be pickled raises; the host goes on."""
    with pytest.raises(TypeError, match="cannot pickle"):
        host.call(_socket)
    with pytest.raises(TypeError, match="cannot pickle"):
        host.call(print, threading.Lock())
    with pytest.raises(AttributeError, match="local object"):
        host.call(lambda: 1)
    assert host.call(_add, 1, other=1) == 2


def test_a_function_that_the_host_cannot_find_is_an_error(
    doomed: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the function is not known inside, the call raises and the host goes on."""
    doomed.call(_add, 1, other=1)  # from here on the module is loaded there as it is now
    monkeypatch.setattr(sys.modules[__name__], "_made_later", _add_later, raising=False)
    monkeypatch.setattr(_add_later, "__qualname__", "_made_later")
    with pytest.raises(AttributeError, match="_made_later"):
        doomed.call(_add_later)
    assert doomed.call(_add, 1, other=1) == 2


class Interrupted(BaseException):
    """What a time limit of a test raises, in the middle of anything."""


def _wait_for_word(port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"waiting", ("127.0.0.1", port))
        sock.settimeout(WITHIN)
        sock.recv(10)
    return "late"


def test_an_interrupted_call_spoils_no_other(doomed: Host) -> None:
    """When a test is cut off in the middle of a call, the next call gets its own answer."""
    with Netlink(doomed.netns) as netlink:
        netlink.send([rtnl.set_link(rtnl.LO, up=True)])

    def interrupt(*_: object) -> None:
        raise Interrupted

    def cut_off() -> None:
        """Once the call is under way inside, interrupt it here, and let it end there."""
        _, inside = ear.recvfrom(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert interrupted.wait(WITHIN)
        ear.sendto(b"go", inside)

    interrupted = threading.Event()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with doomed.netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.bind(("127.0.0.1", 0))
            ear.settimeout(WITHIN)
            thread = threading.Thread(target=cut_off)
            thread.start()
            with pytest.raises(Interrupted):
                doomed.call(_wait_for_word, ear.getsockname()[1])
            interrupted.set()
            assert doomed.call(_add, 1, other=1) == 2
            thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- run ----------------------------------------------------------------------------


def test_a_command_runs_to_its_end(host: Host) -> None:
    """What it is given, said, and how it ended; its directory and its terminal are its own."""
    done = host.run(
        ["sh", "-c", "read line; echo $line $COLOUR; echo oops >&2; exit 3"],
        stdin=b"hello\n",
        env={"COLOUR": "red"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello red\n", "oops\n")
    assert done.argv[:2] == ("sh", "-c")
    assert 0 < done.seconds < WITHIN


def test_a_signal_shows_in_the_return_code(host: Host) -> None:
    """A command that a signal ended has its negative number."""
    assert host.run(["sh", "-c", "kill -9 $$"]).returncode == -9


def test_output_that_is_no_text_comes_through(host: Host) -> None:
    """Bytes that are no UTF-8 are replaced, not an error."""
    assert host.run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("argv", "kind"), [(["no-such-command"], FileNotFoundError), (["/etc/hosts"], PermissionError)]
)
def test_a_command_that_cannot_be_started_raises(
    host: Host, argv: list[str], kind: type[OSError]
) -> None:
    """The error is the kernel's, with the name of the command, for daemons too."""
    with pytest.raises(kind, match=argv[0]):
        host.run(argv)
    with pytest.raises(kind, match=argv[0]):
        host.spawn(argv, log="/run/x")
    with pytest.raises(FileNotFoundError, match="/nowhere/x"):
        host.spawn(["true"], log="/nowhere/x")
    assert host.call(_look)["processes"] == [1, 2]


def test_a_command_that_takes_too_long_is_killed_with_its_children(doomed: Host) -> None:
    """The error carries what it had said, and of its process group nobody is left."""
    script = "echo said; echo moaned >&2; sleep 1000 & sleep 1000"
    with pytest.raises(TimeoutError, match=r"sh -c .* within 0\.2 s.*'said\\nmoaned\\n'"):
        doomed.run(["sh", "-c", script], timeout=0.2)
    assert doomed.call(_wait_until_alone) == [1, 2]


def _wait_until_alone() -> list[int]:
    """Every process, once there are only two or time is up: orphans are reaped by init."""
    deadline = time.monotonic() + WITHIN
    while True:
        found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if len(found) == 2 or time.monotonic() > deadline:
            return found
        os.sched_yield()


def test_what_keeps_the_output_open_is_not_waited_for(doomed: Host) -> None:
    """A command that has left something behind in another group ends all the same, as too late."""
    with pytest.raises(TimeoutError, match=r"left something behind.*'said\\n'"):
        doomed.run(["sh", "-c", "echo said; setsid sleep 1000 & exit 0"], timeout=0.2)
    assert doomed.call(_add, 1, other=1) == 2


# --- spawn --------------------------------------------------------------------------


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _await_text(path: str, text: str) -> bool:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            if text in file.read():
                return True
        os.sched_yield()
    return False


def _kill_and_await_end(pid: int) -> bool:
    """Kill a process; whether it has been reaped, and not by us, in good time."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def test_a_daemon_lives_on_and_init_reaps_it(doomed: Host) -> None:
    """It writes into its log, is a child of init, survives other calls, and leaves no zombie."""
    script = "echo up $COLOUR; echo moan >&2; exec sleep 1000"
    pid = doomed.spawn(["sh", "-c", script], log="/run/daemon.log", env={"COLOUR": "red"})
    assert doomed.call(_await_text, "/run/daemon.log", "up red\nmoan\n")
    assert doomed.call(_parent, pid) == 1
    with doomed.netns_of(pid) as space:
        assert space == doomed.netns
    assert doomed.call(_kill_and_await_end, pid)
    with pytest.raises(FileNotFoundError):
        doomed.netns_of(pid)


def _leave_orphan() -> int:
    """A process whose parent ends at once; its pid."""
    read, write = os.pipe()
    if os.fork() == 0:
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(write, b"%d" % child)
        os._exit(0)
    os.wait()
    return int(os.read(read, 16))


def test_orphans_are_reaped(doomed: Host) -> None:
    """Whoever loses its parent inside becomes a child of init, and is no zombie in the end."""
    orphan = doomed.call(_leave_orphan)
    assert doomed.call(_parent, orphan) == 1
    assert doomed.call(_kill_and_await_end, orphan)


# --- the end ------------------------------------------------------------------------


def test_stop_leaves_no_process(doomed: Host) -> None:
    """Init, server, daemons and what they have started are gone when `stop` returns."""
    doomed.spawn(["sh", "-c", "sleep 1000 & setsid sleep 1000"], log="/run/x")
    inside = members(doomed)
    assert len(inside) >= 3
    pid = doomed.pid
    doomed.stop()
    assert doomed.pid == 0
    assert not set(inside) & set(_pids())
    assert pid not in _pids()
    doomed.stop()
    with pytest.raises(HostDied, match="_add"):
        doomed.call(_add, 1, other=1)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("who", ["init", "server"])
def test_a_host_that_died_is_noticed(doomed: Host, who: str) -> None:
    """A call to a host that is gone, or goes during the call, says so; stopping it still works."""
    doomed.spawn(["sleep", "1000"], log="/run/x")
    inside, end = members(doomed), os.pidfd_open(doomed.pid)
    if who == "init":
        os.kill(doomed.pid, signal.SIGKILL)
    with pytest.raises(HostDied, match=r"the host ended during _die"):
        doomed.call(_die)
    with pytest.raises(HostDied, match=r"the host ended during run"):
        doomed.run(["true"])
    assert select.select([end], [], [], WITHIN)[0], "init is still there"
    os.close(end)
    doomed.stop()
    assert not set(inside) & set(_pids())


def _pause() -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write("paused")
    signal.pause()


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_parent_takes_it_along(*, busy: bool) -> None:
    """When the process that started it is killed, it ends with all that is in it, busy or not."""
    read, write = os.pipe()
    parent = quiet_fork()
    if parent == 0:
        host = started()
        host.spawn(["sleep", "1000"], log="/run/x")
        os.write(write, b"%d\n" % host.pid)
        if busy:
            host.call(_pause)
        signal.pause()
    inside = _with_descendants(int(os.read(read, 64)))
    ends = [os.pidfd_open(member) for member in inside]
    assert len(ends) == 3
    deadline = time.monotonic() + WITHIN
    while busy and not any(_name(pid) == "paused" for pid in inside):
        assert time.monotonic() < deadline
        os.sched_yield()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for end in ends:
        assert select.select([end], [], [], WITHIN)[0], "still there"
    for number in (read, write, *ends):
        os.close(number)


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


def _with_descendants(init: int) -> list[int]:
    space = _namespace(init)
    return [pid for pid in _pids() if _namespace(pid) == space]


def _enter_and_look(host: Host) -> dict[str, object]:
    """What a child of a process that has entered sees itself in."""
    host.enter()
    links = [f"/proc/self/ns/{kind}" for kind in KINDS]
    child = subprocess.run(["readlink", *links], capture_output=True, check=True, text=True)
    inodes = [int(line.partition("[")[2].rstrip("]")) for line in child.stdout.split()]
    return {**dict(zip(KINDS, inodes, strict=True)), "calls": host.call(os.getpid) == os.getpid()}


def test_entering_is_for_good(host: Host) -> None:
    """A process that enters is in every namespace, its children too, and calls by itself."""
    read, write = os.pipe()
    child = quiet_fork()
    if child == 0:
        try:
            os.write(write, pickle.dumps(_enter_and_look(host)))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        seen = pickle.load(pipe)
    os.waitpid(child, 0)
    assert seen == {**{kind: host.namespace(kind)[1] for kind in KINDS}, "calls": True}


def test_a_start_that_fails_leaves_nothing() -> None:
    """What goes wrong while the place is set up is raised here, and nobody stays behind."""
    files, processes = os.listdir("/proc/self/fd"), family()
    space = os.stat("/proc/self/ns/pid_for_children").st_ino
    with pytest.raises(UnicodeEncodeError) as caught:
        Host.start(resolver=RESOLVER, hosts={"Z\N{LATIN SMALL LETTER U WITH DIAERESIS}rich": "::1"})
    assert "in _own_etc" in caught.value.__notes__[0]
    assert (os.listdir("/proc/self/fd"), family()) == (files, processes)
    assert os.stat("/proc/self/ns/pid_for_children").st_ino == space


def test_who_may_not_come_back_is_refused() -> None:
    """In a pid namespace that belongs to others a start is refused before anything happens."""
    source = """
import os
from harness.world.host import Host
try:
    Host.start(resolver="203.0.113.53", hosts={})
except PermissionError as error:
    print(error)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child")
"""
    done = run_program(confined(python(source)))
    refusal, left = done.stdout.splitlines()
    assert "setns(" in refusal
    assert left == "no child"
