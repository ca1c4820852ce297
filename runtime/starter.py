"""A small process that containers are forked from, for a caller that starts many of them.

A fork costs by the size of who forks, and a library's caller may be of any size.
The starter is a fresh interpreter with no more in it than a container's pid 1
needs. It makes pid 1 by one clone3(2), in all its namespaces at once, where the
caller itself would fork twice (see `runtime.init`); and what a pid 1 is made of
stays shared between all of them.

```python
with Starter.begin() as starter:
    engine = Engine(starter=starter)
    engine.run("base", ["sleep", "1000"])
```

Containers come to be in the starter's namespaces, which are those of the process
that began it: one that moves to others afterwards must begin another. They
outlive it, as they outlive any caller of `mydocker`. It ends with its caller, by
whatever death: its end of the socket tells it.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NoReturn, Self

import runtime
from linux.syscalls import CLONE_NEWNET, clone3, setns
from runtime import init
from runtime.errors import UnsupportedError
from runtime.init import Launch

_TITLE: Final = b"mydocker-starter"
_MOST: Final = 64
"""More descriptors than a launch ever has."""
_HELLO: Final = b"ready"
_BEGIN: Final = (
    "import sys; sys.path[:] = {path!r}; from runtime import starter; starter.serve({fd})"
)


class Starter:
    """The caller's side. One may be used by several threads, and by nobody after a fork."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process, self._channel = process, channel

    @classmethod
    def begin(cls) -> Self:
        """Begin one, in the caller's namespaces; `UnsupportedError` when it does not come up."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Nothing of the environment and of site-packages is needed, nor wanted.
        home = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
        code = _BEGIN.format(path=[home, *sys.path], fd=there.fileno())
        with there:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(there.fileno(),),
                start_new_session=True,
                cwd="/",
            )
        if here.recv(len(_HELLO)) != _HELLO:
            here.close()
            code_told = process.wait()
            raise UnsupportedError("begin a starter", f"it ended at once, with {code_told}")
        return cls(process, here)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def launch(self, launch: Launch) -> None:
        """Have a container's pid 1 made; it reports as `runtime.init` tells."""
        descriptors = sorted(launch.descriptors)
        payload = os.memfd_create("launch", os.MFD_CLOEXEC)
        try:
            os.write(payload, pickle.dumps((descriptors, launch)))
            order = [launch.report, payload, *descriptors]
            try:
                socket.send_fds(self._channel, [b"1"], order)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise UnsupportedError("start the container", "its starter has ended") from error
        finally:
            os.close(payload)

    def close(self) -> None:
        """End it; the containers stay. A second call does nothing."""
        self._channel.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


# --- the starter's side --------------------------------------------------------


def serve(fd: int) -> NoReturn:
    """Make one pid 1 after the other until the other side is gone."""
    channel = socket.socket(fileno=fd)
    init.rename_process(_TITLE)
    # Children are collected by the kernel: nobody asks for their exit code here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would copy the pages that all pid 1s share
    channel.send(_HELLO)
    while True:
        data, order, _, _ = socket.recv_fds(channel, 1, _MOST)
        if not data:
            os._exit(0)
        for number in order:
            os.set_inheritable(number, False)  # recv_fds takes no MSG_CMSG_CLOEXEC to heart
        _make(order)
        for number in order:
            os.close(number)


def _make(order: Sequence[int]) -> None:
    report = order[0]
    # Whoever is told the pid enters its namespaces: not before they are the container's.
    waiting, moved = os.pipe()
    try:
        pid = clone3(init.NAMESPACES)
    except OSError as error:
        os.close(waiting)
        os.close(moved)
        if error.errno != errno.ENOSYS:
            init.report_error(report, error)
            return
        pid = init.fork()  # a seccomp filter or an old kernel: the long way
        if not pid:
            init.child(_received(order)[0])
        os.waitpid(pid, 0)
        return
    if pid:
        os.close(moved)
        os.read(waiting, 1)  # until it closes its end, at the latest by its death
        os.close(waiting)
        init.report_pid(report, pid)
        return
    try:
        launch, moved = _received(order, moved)
        init.forget_parent({*launch.descriptors, moved})
        if launch.netns >= 0:
            setns(launch.netns, CLONE_NEWNET)
            os.close(launch.netns)
        os.close(moved)
        init.pid_1(launch)
    except BaseException as error:
        init.report_error(report, error)
    finally:
        os._exit(1)


def _received(order: Sequence[int], *own: int) -> tuple[Launch, int]:
    """The launch, after its descriptors were given the numbers that they have with the caller.

    By those numbers the caller finds in pid 1 what it keeps there. With it comes the
    number that the last of `own`, which are in nobody's way any more, has from now on.
    """
    _, payload, *here = order
    with os.fdopen(payload, "rb", closefd=False) as file:
        file.seek(0)
        descriptors: list[int]
        launch: Launch
        descriptors, launch = pickle.load(file)  # noqa: S301 # from our own caller
    above = max(*descriptors, *order, *own) + 1
    apart = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in (*here, *own)]
    for fd, number in zip(apart, descriptors, strict=False):
        os.dup2(fd, number, inheritable=False)
    return launch, apart[-1]
