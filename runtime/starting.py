"""What a starter does all its life: make one container's pid 1 after the other.

This is a process of its own, begun by `runtime.starter`, and imports as little as it
can: a fork costs by the page.

```
engine                       starter                    pid 1
  ├─ "one, please" ─────────▶  clone3 ───────────────▶   parts from the host's mounts
  │  writes records,         ◀ its pid                   waits
  │  makes the network
  ├─ what to be ─────────────────────────────────────▶   makes the file system, …
```
"""

from __future__ import annotations

import array
import errno
import fcntl
import gc
import os
import pickle
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

from linux.syscalls import CLONE_NEWNET, clone3, setns
from runtime import init, reports, rootfs
from runtime.init import Launch, Title

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
    Title(_TITLE, arguments).take()
    theirs = Title(init.TITLE, arguments)
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


def _make(channel: socket.socket, asker: socket.socket, title: Title) -> None:
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


def _wait(asker: socket.socket, title: Title, *, whole: bool) -> None:
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
        reports.send_pid(launch.report, pid)
        init.pid_1(launch, ground._replace(devices=trees))
    except BaseException as error:
        reports.send_error(launch.report, error)


def _read(payload: int) -> tuple[int, list[int], Launch]:
    raw = os.pread(payload, os.fstat(payload).st_size, 0)
    pid: int
    descriptors: list[int]
    launch: Launch
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
