"""Agent that runs in a container, opens sockets there, and uses them on request from outside.

The interpreter of the test image executes this file without the rest of this project: only the
standard library is available.

A request is a line of JSON, `[number, [[verb, arguments…], …]]`. A reply is a line `[number,
[result, …], [handles without data], [handles with data]]`. The number 0 marks a line that is not a
reply to a request. Bytes are sent as `{"b": base64}`, a kernel error as `{"e": errno}`.

Every socket is non-blocking. The agent reports a watched socket once, when it has data or an error.
It watches the socket again as soon as all data has been read.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import select
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # not in the test image

SOCKET_METHODS = frozenset(
    {
        *("setsockopt", "getsockopt", "bind", "listen", "connect_ex", "shutdown", "send"),
        *("getsockname", "getpeername"),
    }
)
"""Requests that are a method of the socket with this handle."""
_CHUNK = 1 << 16


class Agent:
    """Server in the agent: reads requests line by line from the input and carries them out."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._sockets: dict[int, socket.socket] = {}
        self._handles: dict[int, int] = {}
        self._last = 0
        self._idle: list[int] = []
        self._epoll = select.epoll()
        self._watch = select.EPOLLIN | select.EPOLLONESHOT
        self._epoll.register(reading, select.EPOLLIN)

    def serve(self) -> None:
        """Report the network namespace of the agent, then serve requests until the input ends."""
        self._write(0, [os.readlink("/proc/self/ns/net")], [])
        pending = b""
        while True:
            ready = self._poll(-1)
            if ready:
                self._write(0, [], ready)
            if not self._requested:
                continue
            more = os.read(self._reading, _CHUNK)
            if not more:
                return
            *lines, pending = (pending + more).split(b"\n")
            for line in lines:
                number, requests = json.loads(line)
                done = [self._result(verb, arguments) for verb, *arguments in requests]
                self._write(number, done, self._poll(0))

    def _poll(self, timeout: float) -> list[int]:
        """Return the handles of the ready sockets; set `_requested` if a request has arrived."""
        found = [number for number, _ in self._epoll.poll(timeout)]
        self._requested = self._reading in found
        return [self._handles[number] for number in found if number in self._handles]

    def _write(self, number: int, results: list[Any], ready: list[int]) -> None:
        line = json.dumps([number, results, self._idle, ready], separators=(",", ":"))
        self._idle = []
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self._writing, data) :]

    def _result(self, verb: str, arguments: list[Any]) -> Any:
        try:
            values = [_unpacked(item) for item in arguments]
            if verb in SOCKET_METHODS:
                return packed(getattr(self._sockets[values[0]], verb)(*values[1:]))
            return packed(getattr(self, f"_do_{verb}")(*values))
        except OSError as error:
            return {"e": error.errno or errno.EIO}
        except (AttributeError, TypeError, ValueError, KeyError, OverflowError) as error:
            return {"x": f"{verb}: {type(error).__name__}: {error}"}

    def _keep(self, opened: socket.socket) -> int:
        opened.setblocking(False)
        self._last += 1
        self._sockets[self._last] = opened
        return self._last

    def _read(self, handle: int, call: Any) -> Any:
        """Read from a socket, and watch the socket again once it has no more data."""
        try:
            found = call()
        except BlockingIOError:
            self._watch_again(handle)
            raise
        poll = select.poll()
        poll.register(self._sockets[handle], select.POLLIN)
        if not poll.poll(0):
            self._watch_again(handle)
        return found

    def _watch_again(self, handle: int) -> None:
        opened = self._sockets[handle]
        if opened.fileno() in self._handles:
            self._epoll.modify(opened.fileno(), self._watch)
            self._idle.append(handle)

    # --- verbs of a request

    def _do_sync(self) -> None:
        """Do nothing: the reply reports the sockets that have become ready since the last reply."""

    def _do_open(self, family: int, kind: int, protocol: int) -> int:
        return self._keep(socket.socket(family, kind, protocol))

    def _do_close(self, handle: int) -> None:
        opened = self._sockets.pop(handle)
        if self._handles.pop(opened.fileno(), None):
            self._epoll.unregister(opened.fileno())
        opened.close()

    def _do_watch(self, handle: int) -> None:
        number = self._sockets[handle].fileno()
        if number not in self._handles:
            self._handles[number] = handle
            self._epoll.register(number, self._watch)

    def _do_wait(self, handle: int, seconds: float | None) -> bool:
        """Return whether a socket becomes writable in time; the agent only waits meanwhile."""
        poll = select.poll()
        poll.register(self._sockets[handle], select.POLLOUT)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def _do_accept(self, handle: int) -> Any:
        accepted, sender = self._read(handle, self._sockets[handle].accept)
        return self._keep(accepted), sender

    def _do_sendmsg(
        self, handle: int, data: bytes, ancillary: list[Any], flags: int, address: Any
    ) -> int:
        return self._sockets[handle].sendmsg([data], ancillary, flags, address)

    def _do_recvmsg(self, handle: int, size: int, ancillary: int, flags: int) -> Any:
        opened = self._sockets[handle]
        if flags & socket.MSG_ERRQUEUE:
            return opened.recvmsg(size, ancillary, flags)
        return self._read(handle, lambda: opened.recvmsg(size, ancillary, flags))

    def _do_load(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def _do_mode(self, path: str) -> int:
        return os.stat(path).st_mode

    def _do_resolve(self, name: bytes, family: int) -> tuple[list[str], str]:
        """Return the addresses of a name, and the C library's error message if there are none."""
        try:
            found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
        except socket.gaierror as error:
            return [], str(error.strerror)
        return [str(item[4][0]) for item in found], ""

    def _do_reverse(self, address: str) -> str:
        try:
            return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
        except socket.gaierror:
            return ""

    def _do_hostname(self) -> str:
        return socket.gethostname()


def packed(value: Any) -> Any:
    """Return the value in a form that JSON can represent."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, (tuple, list)):
        return [packed(item) for item in value]
    return value


def _unpacked(value: Any) -> Any:
    """Return a value from JSON with its bytes decoded.

    Lists become tuples, because socket addresses are tuples.
    """
    if isinstance(value, dict):
        return base64.b64decode(value["b"])
    if isinstance(value, list):
        return tuple(_unpacked(item) for item in value)
    return value


if __name__ == "__main__":
    Agent(sys.stdin.fileno(), sys.stdout.fileno()).serve()
