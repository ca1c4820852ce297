"""The host, the machine on which the runtime runs: a process tree in separate namespaces.

`HostMachine.start` forks twice. The first child is pid 1 of a new pid namespace. It also has new
mount, net, uts, ipc and cgroup namespaces, and only reaps processes. The second child is the
*server*. It carries out the requests of the methods `call`, `run` and `spawn`, so that runtimes,
daemons and library functions all run inside the host.

Pid 1 ends with the thread that created it. The kernel then kills every process of the host. The
host's view of the machine's files is read-only: see `harness.world.host_files`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from harness.sandbox import cgroup
from harness.world import host_files, process
from harness.world.process import CompletedCommand
from harness.world.rpc import Channel
from linux.netns import NetNS
from linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    die_with_parent,
    setns,
    unshare,
)

P = ParamSpec("P")
T = TypeVar("T")

NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | CLONE_NEWPID
)
HOSTNAME = "host"
LOG = "/run/netmodes/host.log"


class HostDied(Exception):
    """The host's server has ended; the message names the function that it was running."""


class HostMachine:
    """A running host; it implements `harness.adapters.protocol.HostHandle`."""

    def __init__(self, pid: int, channel: Channel, group: Path | None) -> None:
        self._pid = pid
        self._channel = channel
        self.netns = NetNS.at(f"/proc/{pid}/ns/net")
        """The host's network namespace."""
        self._entered = False
        self._calls = 0
        self.cgroup = group
        """The directory of the host's cgroup; `None` if the machine provides none."""

    @classmethod
    def start(cls, *, resolver: str, hosts: Mapping[str, str]) -> Self:
        """Fork the processes of a host.

        `resolver` goes into the host's resolv.conf, `hosts` (address → names) into its /etc/hosts.
        Raises the error of the child: `OSError` if the kernel refuses a namespace or a mount.
        """
        channel, there = Channel.pair()
        group = cgroup.below(f"host-{os.getpid()}-{channel.fileno()}")
        pid = 0
        try:
            with there:
                pid = _fork_init(there, group, resolver, hosts)
            _unwrap(channel.receive()[1])
        except BaseException:
            channel.close()
            _end(pid, group)
            raise
        return cls(pid, channel, group)

    @property
    def pid(self) -> int:
        """Pid of the host's init, in the caller's pid namespace."""
        return self._pid

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a picklable function inside the host; return its result or raise its exception.

        The server runs one function at a time. If the caller is interrupted, the function still
        runs to its end in the host, and the result is discarded. Raises `HostDied` if the server no
        longer replies.
        """
        if self._entered:
            return function(*args, **kwargs)
        request = pickle.dumps((function, args, kwargs))
        self._calls += 1
        try:
            answer = self._channel.ask(self._calls, request)
        except (EOFError, OSError) as error:
            raise HostDied(
                f"the host ended during {getattr(function, '__qualname__', function)}: {error!r}"
            ) from error
        result: T = _unwrap(answer)
        return result

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> CompletedCommand:
        """Run a command inside the host; after `timeout` seconds kill it, raise `TimeoutError`."""
        return self.call(process.run, tuple(argv), stdin, dict(env or {}), timeout)

    def spawn(self, argv: Sequence[str], *, log: str, env: Mapping[str, str] | None = None) -> int:
        """Start a daemon inside the host; return its pid in the host.

        The daemon's output goes to the file `log`.
        """
        return self.call(process.spawn, tuple(argv), log, dict(env or {}))

    def talk(
        self, argv: Sequence[str], *, log: str, env: Mapping[str, str] | None = None
    ) -> tuple[int, int, int]:
        """Start a command inside the host, connected to the caller by pipes.

        Returns the command's pid in the host, the descriptor to read its output, and the one to
        write its input. A command that reads its input ends when the caller closes the latter.
        Standard error goes to the file `log` in the host.
        """
        pid, server, ours, theirs = self.call(process.talk, tuple(argv), log, dict(env or {}))
        opened: list[int] = []
        try:
            # proc(5) lets this process reopen a pipe of another process by name.
            for number, how in ((theirs, os.O_RDONLY), (ours, os.O_WRONLY)):
                opened.append(os.open(f"{self.proc}/{server}/fd/{number}", how | os.O_CLOEXEC))
        except BaseException:
            process.close_all(*opened)
            raise
        finally:
            self.call(process.close_all, ours, theirs)
        return pid, opened[0], opened[1]

    @property
    def proc(self) -> str:
        """Path of the host's /proc as the caller sees it, from outside or after `enter`."""
        return "/proc" if self._entered else f"/proc/{self._pid}/root/proc"

    def netns_of(self, pid: int) -> NetNS:
        """Return a handle on the network namespace of a process; `pid` is its pid in the host."""
        return NetNS.at(f"{self.proc}/{pid}/ns/net")

    def namespace(self, kind: str) -> tuple[int, int]:
        """Return device and inode of a namespace of the host: pid, mnt, uts, ipc or cgroup."""
        status = os.stat(f"/proc/{self._pid}/ns/{kind}")
        return status.st_dev, status.st_ino

    def enter(self) -> None:
        """Move the calling process into the host for good; its later children get pids in the host.

        The caller is a freshly forked process that is about to execute a program or to use `call`.
        From now on `call` runs functions in the calling process itself.
        """
        if self.cgroup is not None:
            cgroup.join(self.cgroup)  # else its cgroup namespace would show the cgroup as outside
        pidfd = os.pidfd_open(self._pid)
        setns(pidfd, NAMESPACES)
        os.close(pidfd)
        os.chdir("/")
        self._entered = True

    def stop(self) -> None:
        """End pid 1, and with it every process of the host; a second `stop` does nothing."""
        if self._pid:
            self._channel.close()
            self.netns.close()
            _end(self._pid, self.cgroup)
            self._pid = 0


def quiet_fork() -> int:
    """Fork without Python's warning about other threads; the child must not return.

    Only the calling thread continues in the child. Python warns because locks that other threads
    hold stay locked there. The only other thread here is execnet's reader, and the child never
    takes its locks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def detach_from_parent(kept: set[int]) -> None:
    """Detach a forked child from its parent's terminal, signal handlers and descriptors.

    The child ends when its parent ends. All descriptors are closed except those in `kept`; 0, 1 and
    2 become /dev/null.
    """
    die_with_parent()
    gc.freeze()  # leave the parent's objects alone: their pages stay shared
    os.setsid()  # Ctrl-C is for pytest, which then ends the world in order
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signal_number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    first = 3
    for number in [*sorted(kept), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(first, number)
        first = number + 1


def _fork_init(there: Channel, group: Path | None, resolver: str, hosts: Mapping[str, str]) -> int:
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(own, CLONE_NEWPID)  # fail before the change if it cannot be undone
        unshare(CLONE_NEWPID)  # holds for children only; taken back below
        try:
            pid = quiet_fork()
            if pid == 0:
                _be_init(there, group, resolver, hosts)
        finally:
            setns(own, CLONE_NEWPID)
    finally:
        os.close(own)
    return pid


def _end(pid: int, group: Path | None) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    if group is not None:
        cgroup.remove(group)


# --- inside ------------------------------------------------------------------


def _be_init(
    there: Channel, group: Path | None, resolver: str, hosts: Mapping[str, str]
) -> NoReturn:
    """Run as pid 1 of the host: set it up, start the server, and reap until the server ends."""
    try:
        detach_from_parent({there.fileno()})
        channel = Channel.at(there.detach())
        try:
            if group is not None:
                cgroup.join(group)
            _settle_in(resolver, hosts)
        except Exception as error:
            channel.send(0, pickle.dumps((False, _portable(error))))
            os._exit(1)
        server = os.fork()
        if server == 0:
            _serve(channel)
        channel.close()
        while True:
            pid, _ = os.wait()
            if pid == server:
                os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def _settle_in(resolver: str, hosts: Mapping[str, str]) -> None:
    unshare(NAMESPACES & ~CLONE_NEWPID)
    socket.sethostname(HOSTNAME)
    host_files.furnish(HOSTNAME, resolver, hosts)
    os.environ["XDG_CACHE_HOME"] = host_files.cache()
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    os.chdir("/")


def _serve(channel: Channel) -> NoReturn:
    """Carry out the requests from a channel, one after the other, until the channel closes."""
    channel.send(0, pickle.dumps((True, None)))
    while True:
        try:
            number, request = channel.receive()
        except (EOFError, OSError):
            os._exit(0)
        try:
            function, args, kwargs = pickle.loads(request)  # noqa: S301 # from our own parent
            answer = pickle.dumps((True, function(*args, **kwargs)))
        except BaseException as error:
            answer = pickle.dumps((False, _portable(error)))
        channel.send(number, answer)


def _portable(error: BaseException) -> Exception:
    """Return the exception with its traceback as a note.

    An exception that cannot be pickled becomes a `RuntimeError` with its text.
    """
    note = f"raised inside the host:\n{''.join(traceback.format_exception(error))}"
    portable: Exception = RuntimeError(f"{type(error).__name__}: {error}")
    with contextlib.suppress(Exception):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 # just made
        if isinstance(again, Exception) and str(again) == str(error):
            portable = again
    portable.add_note(note)
    return portable


def _unwrap(answer: bytes) -> Any:
    fine, value = pickle.loads(answer)  # noqa: S301 # from our own child
    if not fine:
        raise value
    return value
