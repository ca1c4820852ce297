"""A process that attendants are forked from, for a caller who has one begun again and again.

What an attendant imports takes a tenth of a second; here it is imported once. This is a
process of its own, begun by `runtime.container.prefork`, and ends with the caller. The attendants
outlive it.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
import traceback
from contextlib import suppress
from functools import cache
from typing import Final, NoReturn

from runtime.init import init

_TITLE: Final = b"mydocker-nursery"
_PATH_MAX: Final = 4096
BEGUN: Final = b"begun"


def serve(fd: int) -> NoReturn:
    """Fork one attendant after the other until the other side is gone.

    It answers once there is a process, which may still be getting up.
    """
    channel = socket.socket(fileno=fd)
    arguments = init.arguments_area()
    init.ProcessTitle(_TITLE, arguments).take()
    init.default_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for their exit codes
    while True:
        root, descriptors = _received(channel)
        if not descriptors:
            os._exit(0)
        if not init.fork():
            _become(root, descriptors, arguments)
        for opened in descriptors:
            os.close(opened)
        with suppress(OSError):  # whoever asked has ended
            channel.send(BEGUN)
        _prepare()  # after the first, which imports for itself, so that nobody waits for it


@cache
def _prepare() -> None:
    """Import what an attendant needs: not before one was asked for, which may be never."""
    from runtime.daemon import daemon  # noqa: F401

    gc.collect()
    gc.freeze()


def _received(channel: socket.socket) -> tuple[str, list[int]]:
    """The state directory and the socket and log of the next one; none when it was the last."""
    size = socket.CMSG_LEN(2 * array.array("i").itemsize)
    try:
        root, control, _, _ = channel.recvmsg(_PATH_MAX, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return "", []
    found = array.array("i")
    for _, _, data in control:
        found.frombytes(data)
    return os.fsdecode(root), list(found)


def _become(root: str, descriptors: list[int], arguments: init.Area) -> NoReturn:
    try:
        from runtime.daemon import daemon
        from runtime.daemon.client import LISTENING

        init.forget_parent(descriptors)
        init.default_signals([signal.SIGCHLD])
        listening, log = descriptors
        nothing = os.open(os.devnull, os.O_RDWR)
        for target, opened in ((0, nothing), (1, log), (2, log), (LISTENING, listening)):
            os.dup2(opened, target)
        init.close_others({LISTENING})
        gc.enable()
        daemon.main(root, arguments)
    except BaseException:
        traceback.print_exc()  # into its log
    finally:
        os._exit(1)
