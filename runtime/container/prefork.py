"""A small process that containers are forked from, for a caller that starts many of them.

A fork costs by the size of who forks, and a library's caller may be of any size.
The starter is a fresh interpreter with no more in it than a container's pid 1
needs (`runtime.container.prefork`). It makes pid 1 by one clone3(2), in all its namespaces
at once, where the caller itself would fork twice (see `runtime.init.init`), while the
caller still writes down what is to be started; and what a pid 1 is made of stays
shared between all of them.

```python
with Starter.begin() as starter:
    engine = Engine(starter=starter)
    engine.run("base", ["sleep", "1000"])
```

Containers come to be in the starter's namespaces, which are those of the process
that began it: one that moves to others afterwards must begin another. They
outlive it, as they outlive any caller of `mydocker`. Beside it is another process from which
attendants are forked (`runtime.daemon.nursery`). Both end with their caller, by
whatever death: their ends of the sockets tell them.
"""

from __future__ import annotations

import array
import errno
import fcntl
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Final, NamedTuple, NoReturn, Self

import runtime
from linux.proc import ended_within
from linux.syscalls import (
    CLONE_NEWNET,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    clone3,
    open_tree,
    restrict_tree,
    setns,
)
from runtime.daemon.nursery import BEGUN
from runtime.errors import MydockerError, UnsupportedError, refused
from runtime.init import init, rootfs, status_pipe
from runtime.init.init import InitSpec, ProcessTitle

_BEGIN: Final = (
    "import os, sys; os.close({program}); sys.path[:] = {path!r};"
    " from {module} import serve; serve({fd})"
)


@contextmanager
def _unchangeable(program: str) -> Iterator[int]:
    """A program by a mount of its own, through which nobody can change it, as a descriptor.

    Whoever executes it by that, and what is forked from there, is no way to the file: the mount
    is read-only, lies nowhere, and stays for as long as one of them lives.
    """
    tree = open_tree(program)
    try:
        restrict_tree(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
        yield tree
    finally:
        os.close(tree)


class Process(NamedTuple):
    """A process that others are forked from, and the channel by which they are asked for."""

    process: subprocess.Popen[bytes]
    channel: socket.socket

    @classmethod
    def begin(cls, module: str) -> Self:
        """Begin one, which then serves as `module` does."""
        try:
            return cls._begun(module)
        except OSError as error:
            raise refused("begin a starter", error) from error

    @classmethod
    def _begun(cls, module: str) -> Self:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Nothing of the environment and of site-packages is needed, nor wanted.
        home = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
        try:
            with there, _unchangeable(sys.executable) as program:
                code = _BEGIN.format(
                    path=[home, *sys.path], module=module, fd=there.fileno(), program=program
                )
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", code],
                    executable=f"/proc/self/fd/{program}",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(there.fileno(), program),
                    start_new_session=True,
                    cwd="/",
                )
        except BaseException:
            here.close()
            raise
        return cls(process, here)

    def await_ready(self) -> None:
        """Return once it serves; `UnsupportedError` when it does not come up."""
        if self.channel.recv(len(HELLO)) != HELLO:
            self.channel.close()
            told = self.process.wait()
            raise UnsupportedError("begin a starter", f"it ended at once, with {told}")

    def close(self) -> None:
        """End it. A second call does nothing."""
        self.channel.close()
        self.process.wait()


class Starter:
    """The caller's side. One may be used by several threads, and by nobody after a fork."""

    def __init__(self, starting: Process, nursery: Process) -> None:
        self._starting, self._nursery = starting, nursery
        self._asking = threading.Lock()

    @classmethod
    def begin(cls) -> Self:
        """Begin one, in the caller's namespaces; `UnsupportedError` when it does not come up."""
        with ExitStack() as undone:
            starting = Process.begin("runtime.container.prefork")
            undone.callback(starting.close)
            nursery = Process.begin("runtime.daemon.nursery")  # it may take its time
            undone.callback(nursery.close)
            starting.await_ready()
            undone.pop_all()
        return cls(starting, nursery)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._starting.process.pid

    def prepare(self) -> Pending:
        """Have a container's pid 1 made, in namespaces of its own, which then waits."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            try:
                socket.send_fds(self._starting.channel, [b"1"], [there.fileno()])
            except (BrokenPipeError, ConnectionResetError) as error:
                here.close()
                raise _ended() from error
        return Pending(here, self._starting.channel)

    def attendant(self, root: str, listening: int, log: int) -> bool:
        """Have an attendant begun for a state directory; false where there is nobody to do it.

        It finds its callers at `listening`, and writes what goes wrong to `log`. On return
        there is such a process.
        """
        channel = self._nursery.channel
        try:
            with self._asking:
                socket.send_fds(channel, [os.fsencode(root)], [listening, log])
                return bool(channel.recv(len(BEGUN)))
        except (BrokenPipeError, ConnectionResetError):
            return False

    def close(self) -> None:
        """End it; the containers stay. A second call does nothing."""
        self._starting.close()
        self._nursery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Pending:
    """A pid 1 that waits to be told what to be. It ends with this, or with the caller.

    The `starter`'s channel tells when that has ended. Killed before it has told the pid, it would
    leave two that wait for each other.
    """

    def __init__(self, channel: socket.socket, starter: socket.socket) -> None:
        self._channel, self._starter = channel, starter
        self._launched = False

    def launch(self, launch: InitSpec) -> None:
        """Let it become a container's; it reports as `runtime.init.status_pipe` tells."""
        self._launched = True
        descriptors = sorted(launch.descriptors)
        order = pickle.dumps((self._pid(), descriptors, launch))
        payload = os.memfd_create("launch", os.MFD_CLOEXEC)
        try:
            os.write(payload, order)
            socket.send_fds(self._channel, [b"1"], [payload, *descriptors])
        except (BrokenPipeError, ConnectionResetError):
            return  # it has ended: nobody will ever report
        finally:
            os.close(payload)

    def _pid(self) -> int:
        """Its pid as the caller's pid namespace numbers it; 0 where it does not know yet."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        if self._starter.fileno() >= 0:
            poll.register(self._starter, 0)  # its end is told without being asked for
            poll.poll()
        said = b""
        with suppress(ConnectionResetError, BlockingIOError):  # the starter's end alone was told
            said = self._channel.recv(MESSAGE, socket.MSG_DONTWAIT)
        if not said:
            raise _ended()
        pid, _, refusal = said.decode().partition(" ")
        if refusal:
            number, _, why = refusal.partition(" ")
            raise refused("start the container", OSError(int(number), why))
        return int(pid)

    def close(self) -> None:
        """Give it up, and return once it has ended; one that was launched goes on.

        A second call does nothing.
        """
        if self._launched or self._channel.fileno() < 0:
            self._channel.close()
            return
        handle = -1
        with suppress(MydockerError, ProcessLookupError):  # it was never made, or has ended
            if pid := self._pid():
                handle = os.pidfd_open(pid)
        self._channel.close()
        if handle >= 0:
            ended_within(handle, None)
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ended() -> UnsupportedError:
    return UnsupportedError("start the container", "its starter has ended")


HELLO: Final = b"ready"
_TITLE: Final = b"mydocker-starter"
_MOST: Final = 64
"""More descriptors than a launch ever has."""
MESSAGE: Final = 4096
"""Bytes of the longest word between the caller, the starter and a pid 1 that waits."""
_OURS: Final = (signal.SIGCHLD, signal.SIGPIPE)
"""Signals that the starter ignores, and a container must not."""


def serve(fd: int) -> NoReturn:
    """Make one pid 1 after the other until the other side is gone."""
    channel = socket.socket(fileno=fd)
    arguments = init.arguments_area()
    ProcessTitle(_TITLE, arguments).take()
    theirs = ProcessTitle(init.TITLE, arguments)
    init.default_signals()
    for ours in _OURS:  # children are collected by the kernel: nobody asks for their exit code
        signal.signal(ours, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would copy the pages that all pid 1s share
    channel.send(HELLO)
    while True:
        found = _received(channel)
        if not found:
            os._exit(0)
        with socket.socket(fileno=found[0]) as asker:
            _make(channel, asker, theirs)


def _received(channel: socket.socket) -> list[int]:
    """The descriptors that come next; none when there will be no more."""
    size = socket.CMSG_LEN(_MOST * array.array("i").itemsize)
    try:
        _, control, _, _ = channel.recvmsg(1, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return []
    found = array.array("i")
    for _, _, data in control:
        found.frombytes(data)
    return list(found)


def _make(channel: socket.socket, asker: socket.socket, title: ProcessTitle) -> None:
    whole = True
    try:
        try:
            pid = clone3(init.NAMESPACES)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            pid, whole = init.fork(), False  # a seccomp filter or an old kernel: the long way
    except OSError as error:
        with suppress(OSError):  # whoever asked has ended
            asker.send(f"0 {error.errno or 0} {error.strerror or error}".encode()[:MESSAGE])
        return
    if pid:
        with suppress(OSError):
            asker.send(str(pid if whole else 0).encode())
        return
    try:
        channel.close()
        _wait(asker, title, whole=whole)
    finally:
        os._exit(1)


# --- a pid 1 that waits -----------------------------------------------------------


def _wait(asker: socket.socket, title: ProcessTitle, *, whole: bool) -> None:
    """Get ready, and become what the caller says; `whole`: in namespaces of one's own already.

    Each page that is touched here for the first time is copied, and makes every start longer: so
    what can be made ready once, by the starter, is.
    """
    if whole:
        os.setsid()  # the long way, `init.child` does it
    for ours in _OURS:
        signal.signal(ours, signal.SIG_DFL)
    ground, refusal = None, None
    if whole:
        title.take()
        try:
            ground = rootfs.prepare()
        except OSError as error:
            refusal = error
    found = _received(asker)
    if not found:
        os._exit(0)  # nobody is to be started after all
    pid, descriptors, launch = _read(found[0])
    trees = _placed(found[1:], descriptors, ground.devices if ground is not None else ())
    try:
        init.close_others({*descriptors, *trees})
        if refusal is not None:
            raise refusal
        if ground is None:
            init.child(launch)
        if launch.netns >= 0:
            setns(launch.netns, CLONE_NEWNET)
            os.close(launch.netns)
        # Whoever is told the pid enters its namespaces: not before they are the container's.
        status_pipe.send_pid(launch.report, pid)
        init.pid_1(launch, ground._replace(devices=trees))
    except BaseException as error:
        status_pipe.send_error(launch.report, error)


def _read(payload: int) -> tuple[int, list[int], InitSpec]:
    raw = os.pread(payload, os.fstat(payload).st_size, 0)
    pid: int
    descriptors: list[int]
    launch: InitSpec
    pid, descriptors, launch = pickle.loads(raw)  # noqa: S301 # from our own caller
    return pid, descriptors, launch


def _placed(here: Sequence[int], numbers: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    """Give descriptors the numbers that they have with the caller; what `others` have then.

    By those numbers the caller finds in pid 1 what it keeps there.
    """
    above = max(*numbers, *here, *others) + 1
    apart = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in (*here, *others)]
    for fd, number in zip(apart, numbers, strict=False):
        os.dup2(fd, number, inheritable=False)
    return tuple(apart[len(here) :])
