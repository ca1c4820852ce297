"""What a starter does all its life: make one container's pid 1 after the other.

This is a process of its own, begun by `runtime.starter`, and imports as little as it
can: a fork costs by the page. What can be done before the fork is done there, because
whatever the child is the first to write to costs it a copy.
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
from typing import Final, NamedTuple, NoReturn

from linux.netns import NetNS
from linux.syscalls import CLONE_NEWNET, clone3, setns
from runtime import init, reports
from runtime.init import Area, Launch

HELLO: Final = b"ready"
_TITLE: Final = b"mydocker-starter"
_MOST: Final = 64
"""More descriptors than a launch ever has."""
_OURS: Final = (signal.SIGCHLD, signal.SIGPIPE)
"""Signals that the starter ignores, and a container must not."""


class _Order(NamedTuple):
    """A launch as it came: `here` are the starter's numbers of the caller's `descriptors`."""

    launch: Launch
    descriptors: Sequence[int]
    here: Sequence[int]


def serve(fd: int) -> NoReturn:
    """Make one pid 1 after the other until the other side is gone."""
    channel = socket.socket(fileno=fd)
    arguments, home = init.arguments_area(), NetNS.own()
    init.rename_process(_TITLE, arguments)
    init.default_signals()
    for ours in _OURS:  # children are collected by the kernel: nobody asks for their exit code
        signal.signal(ours, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would copy the pages that all pid 1s share
    channel.send(HELLO)
    while True:
        descriptors = _received(channel)
        if not descriptors:
            os._exit(0)
        report, payload, *here = descriptors
        with suppress(BrokenPipeError):  # whoever asked for it has ended
            try:
                _make(_read(payload, here), report, arguments, home)
            except OSError as error:
                reports.send_error(report, error)
        for number in descriptors:
            os.close(number)


def _received(channel: socket.socket) -> list[int]:
    """The descriptors of the next order; none when there will be no more."""
    size = socket.CMSG_LEN(_MOST * array.array("i").itemsize)
    _, control, _, _ = channel.recvmsg(1, size, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for _, _, data in control:
        found.frombytes(data)
    return list(found)


def _read(payload: int, here: Sequence[int]) -> _Order:
    raw = os.pread(payload, os.fstat(payload).st_size, 0)
    descriptors, launch = pickle.loads(raw)  # noqa: S301 # from our own caller
    return _Order(launch, descriptors, here)


def _make(order: _Order, report: int, arguments: Area, home: NetNS) -> None:
    try:
        pid = _cloned(order, home)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        pid = init.fork()  # a seccomp filter or an old kernel: the long way
        if not pid:
            init.child(_placed(order))
        os.waitpid(pid, 0)
        return
    if pid:
        reports.send_pid(report, pid)
        return
    try:
        launch = _placed(order)
        report = launch.report  # the starter's number may be anybody's now
        os.setsid()
        init.close_others(launch.descriptors)
        init.default_signals(_OURS)
        if launch.netns >= 0:
            os.close(launch.netns)
        init.pid_1(launch, arguments)
    except BaseException as error:
        reports.send_error(report, error)
    finally:
        os._exit(1)


def _cloned(order: _Order, home: NetNS) -> int:
    """The pid of a fork of this process, and 0 in that, in the container's namespaces.

    Also in its network namespace, from the first moment: whoever is told the pid enters
    the namespaces of that process.
    """
    if order.launch.netns < 0:
        return clone3(init.NAMESPACES)
    setns(order.here[order.descriptors.index(order.launch.netns)], CLONE_NEWNET)
    pid = -1
    try:
        pid = clone3(init.NAMESPACES)
    finally:
        if pid:  # not in the child, which stays
            setns(home.fd, CLONE_NEWNET)
    return pid


def _placed(order: _Order) -> Launch:
    """The launch, after its descriptors were given the numbers that they have with the caller.

    By those numbers the caller finds in pid 1 what it keeps there.
    """
    above = max(*order.descriptors, *order.here) + 1
    apart = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in order.here]
    for fd, number in zip(apart, order.descriptors, strict=True):
        os.dup2(fd, number, inheritable=False)
    return order.launch
