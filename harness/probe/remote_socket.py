"""A socket that an agent has opened elsewhere, used as if it were here."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, Self

_CHUNK: Final = 1 << 20


class Opener(Protocol):
    """What `harness.probe.remote.Agent` is to its sockets."""

    def do(self, *asked: Sequence[Any]) -> list[Any]:
        """Carry out what is asked."""

    def watch(self, handle: int) -> int:
        """A descriptor that can be read while a socket has something to be read."""

    def forget(self, handle: int) -> None:
        """Close a socket."""


class RemoteSocket:
    """What `socket.socket` is for the callers in this project, elsewhere. One thread uses it."""

    def __init__(
        self, agent: Opener, family: int, kind: int, protocol: int = 0, *, handle: int = 0
    ) -> None:
        self._agent = agent
        self.family, self.type, self.proto = family, kind & 0xF, protocol
        self._timeout: float | None = None
        self._descriptor = -1
        self._handle = handle or agent.do(["open", family, kind, protocol])[0]

    def _do(self, verb: str, *arguments: Any) -> Any:
        return self._agent.do([verb, self._handle, *arguments])[0]

    # --- waiting

    def fileno(self) -> int:
        """A descriptor that is readable while this is; good for nothing else."""
        if self._descriptor < 0:
            self._descriptor = self._agent.watch(self._handle)
        return self._descriptor

    def setblocking(self, blocking: bool) -> None:  # noqa: FBT001 # as socket has it
        """As `socket.socket.setblocking`."""
        self._timeout = None if blocking else 0.0

    def settimeout(self, seconds: float | None) -> None:
        """As `socket.socket.settimeout`."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """As `socket.socket.gettimeout`."""
        return self._timeout

    def _reading(self, verb: str, *arguments: Any) -> Any:
        if self._timeout == 0.0 and self._descriptor >= 0 and not _readable(self._descriptor):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # it would have told
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            try:
                return self._do(verb, *arguments)
            except BlockingIOError:
                if self._timeout == 0.0:
                    raise
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not _readable(self.fileno(), left):
                raise TimeoutError("timed out")

    def _writable(self) -> None:
        if self._timeout == 0.0 or not self._do("wait", self._timeout):
            raise TimeoutError("timed out")

    # --- asking

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As `socket.socket.setsockopt`."""
        self._do("set", level, option, value)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        """As `socket.socket.getsockopt`."""
        got: int | bytes = self._do("get", level, option, size)
        return got

    def bind(self, address: Any) -> None:
        """As `socket.socket.bind`."""
        self._do("bind", address)

    def listen(self, backlog: int = 128) -> None:
        """As `socket.socket.listen`."""
        self._do("listen", backlog)

    def getsockname(self) -> Any:
        """As `socket.socket.getsockname`."""
        return self._do("name")

    def getpeername(self) -> Any:
        """As `socket.socket.getpeername`."""
        return self._do("peer")

    def shutdown(self, how: int) -> None:
        """As `socket.socket.shutdown`."""
        self._do("shutdown", how)

    def connect_ex(self, address: Any) -> int:
        """As `socket.socket.connect_ex`."""
        code: int = self._do("connect", address)
        if code == errno.EINPROGRESS and self._timeout != 0.0:
            self._writable()
            code = int(self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return code

    def connect(self, address: Any) -> None:
        """As `socket.socket.connect`."""
        if code := self.connect_ex(address):
            raise OSError(code, os.strerror(code))

    def accept(self) -> tuple[RemoteSocket, Any]:
        """As `socket.socket.accept`."""
        handle, sender = self._reading("accept")
        return RemoteSocket(self._agent, self.family, self.type, self.proto, handle=handle), sender

    # --- data

    def send(self, data: bytes, flags: int = 0) -> int:
        """As `socket.socket.send`."""
        while True:
            try:
                sent: int = self._do("send", bytes(data), flags)
            except BlockingIOError:
                if self._timeout == 0.0:
                    raise
                self._writable()
            else:
                return sent

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """As `socket.socket.sendall`."""
        left = memoryview(data)
        while left:
            left = left[self.send(bytes(left[:_CHUNK]), flags) :]

    def sendto(self, data: bytes, *where: Any) -> int:
        """As `socket.socket.sendto`, with flags or without."""
        *flags, address = where
        return self.sendmsg([data], (), flags[0] if flags else 0, address)

    def sendmsg(
        self,
        buffers: Sequence[bytes],
        ancillary: Sequence[Any] = (),
        flags: int = 0,
        address: Any = None,
    ) -> int:
        """As `socket.socket.sendmsg`."""
        sent: int = self._do("sendmsg", b"".join(buffers), list(ancillary), flags, address)
        return sent

    def recvmsg(self, size: int, ancillary: int = 0, flags: int = 0) -> Any:
        """As `socket.socket.recvmsg`; what lies in the error queue is never waited for."""
        if flags & socket.MSG_ERRQUEUE:
            return self._do("recvmsg", size, ancillary, flags)
        return self._reading("recvmsg", size, ancillary, flags)

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Any]:
        """As `socket.socket.recvfrom`."""
        data, _, _, sender = self.recvmsg(size, 0, flags)
        return data, sender

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As `socket.socket.recv`."""
        data: bytes = self.recvmsg(size, 0, flags)[0]
        return data

    def close(self) -> None:
        """As `socket.socket.close`."""
        if self._handle:
            self._agent.forget(self._handle)
            self._handle, self._descriptor = 0, -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _readable(descriptor: int, within: float | None = 0.0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if within is None else within * 1000))
