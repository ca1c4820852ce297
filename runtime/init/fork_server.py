"""Fork server: a small process that forks the first processes of containers and the DNS daemon.

The time of a fork grows with the memory of the parent, and a start forks three times. One fork
takes 3.8 ms in a pytest worker (77 MB) and 0.7 ms in this server. A library caller that starts many
containers passes a server to its `Engine`. The `mydocker` command is itself small and needs no
server.

Containers start in the server's namespaces, which are those of the process that started it, and
outlive the server. The server's interpreter runs from a separate read-only mount, so that no
container can change the file through /proc (CVE-2019-5736). The server ends when its callers have
closed their socket.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self

from linux.syscalls import MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, open_tree, restrict_tree
from runtime.init import init
from runtime.init.status_pipe import MAX_DESCRIPTORS

if TYPE_CHECKING:  # slow to import, for a command that begins no server
    import socket
    import subprocess

Spawn = Callable[[str, tuple[Any, ...], Collection[int]], int]
"""Run `module:function` with these arguments in a child, which has these descriptors open.

Return the pid of the child that the caller has to wait for, or 0. The function does not return.
"""

LARGEST_REQUEST: Final = 1 << 17
"""Maximum length of a request in bytes, below the kernel's limit (net.core.wmem_default)."""
_PROGRAM: Final = (
    "import os, sys; os.close({program}); sys.path[:] = {path!r}\n"
    "from runtime.init.fork_server import serve; serve({fd})"
)


def fork_here(entry: str, arguments: tuple[Any, ...], _keep: Collection[int]) -> int:
    """Fork this process, without a fork server; the default value of `spawn`."""
    threading = sys.modules.get("threading")  # unless it was imported, there is one thread
    if threading and threading.active_count() > 1:  # another may hold the lock of a module
        _function(entry)
    child = init.fork()
    if not child:
        try:
            _function(entry)(*arguments)
        finally:
            os._exit(1)
    return child


def _function(entry: str) -> Callable[..., object]:
    module, _, name = entry.partition(":")
    found: Callable[..., object] = getattr(import_module(module), name)
    return found


class ForkServer:
    """The caller's side of a server. Threads and forks of the caller may use it."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process, self.channel = process, channel

    @classmethod
    def begin(cls) -> Self:
        """Start a server in the caller's namespaces."""
        import socket
        import subprocess

        import runtime

        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        home = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
        with there:
            program = open_tree(sys.executable)
            try:
                restrict_tree(program, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
                code = _PROGRAM.format(program=program, path=[home, *sys.path], fd=there.fileno())
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", code],
                    executable=f"/proc/self/fd/{program}",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(there.fileno(), program),
                    start_new_session=True,
                    cwd="/",
                )
            finally:
                os.close(program)
        return cls(process, here)

    def spawn(self, entry: str, arguments: tuple[Any, ...], keep: Collection[int]) -> int:
        """Let the server fork (`Spawn`).

        Fork in this process if the request is too large or the server has ended.
        """
        import pickle
        import socket

        request = pickle.dumps((entry, arguments, tuple(keep)))
        if len(request) <= LARGEST_REQUEST and len(keep) <= MAX_DESCRIPTORS:
            with suppress(ConnectionError):
                socket.send_fds(self.channel, [request], list(keep), socket.MSG_NOSIGNAL)
                return 0
        return fork_here(entry, arguments, keep)

    def close(self) -> None:
        """End the server.

        Closing the channel is not enough: forks of the caller may still have the channel open.
        """
        self.channel.close()
        self.process.kill()
        self.process.wait()


def serve(channel: int) -> None:
    """Fork a child for each request until all callers have closed the channel."""
    import gc
    import pickle
    import signal
    import socket

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    gc.freeze()
    with socket.socket(fileno=channel) as opened:
        while True:
            request, found, _, _ = socket.recv_fds(opened, LARGEST_REQUEST, MAX_DESCRIPTORS)
            if not request:
                return
            entry, arguments, numbers = pickle.loads(request)  # noqa: S301 - its own caller's
            function = _function(entry)  # imported once, for all children
            if not os.fork():
                try:
                    _renumber(found, numbers)
                    function(*arguments)
                finally:
                    os._exit(1)
            for fd in found:
                os.close(fd)


def _renumber(found: list[int], numbers: tuple[int, ...]) -> None:
    """Give received descriptors the numbers that they have in the caller; set close-on-exec."""
    import fcntl

    above = max(numbers, default=0) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in found]
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number, inheritable=False)
