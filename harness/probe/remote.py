"""Sockets inside a container, opened by an agent there and used like local sockets.

The agent (`harness.probe.agent`) is started once per container through the runtime's own exec.
Requests and replies go over the agent's standard input and output, never over the tested network.

`AgentNetNS` is a handle on a container's netns that opens its sockets through the agent. Code that
uses the sockets of a netns works unchanged with these sockets.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import json
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Self, cast

from harness.probe.agent import SOCKET_METHODS, packed
from linux import rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS, sysctl_path

SOURCE: Final = Path(__file__).with_name("agent.py")
"""The agent: one file, passed to the interpreter as an argument."""
COMMAND: Final = ("/usr/bin/python3", "-I", "-S", "-c", SOURCE.read_text("utf-8"))
"""Command that starts the agent inside, with the Python of the test image.

`runtime.image.assemble` puts the interpreter into the image.
"""
ANSWER_BOUND: Final = 30.0
"""Bound on an agent's reply, in seconds. It usually takes less than a millisecond."""
ENDING_BOUND: Final = 5.0
"""Time in seconds that an agent and the exec that started it have to end."""
_CHUNK: Final = 1 << 20


class AgentLost(Exception):
    """An agent has ended or does not reply; the message quotes the agent's log.

    This is not an `OSError`, because an `OSError` describes the tested network.
    """


class AgentClient:
    """Client of an agent; closing the client ends the agent.

    `reading` and `writing` are descriptors of the agent's output and input, which the client owns.
    `log` is the file with the agent's standard error. The agent may still be starting: the first
    request waits for it, and raises `AgentLost` if the agent does not report its netns. `kill` is
    called if the agent does not end after its input has ended.
    """

    def __init__(
        self,
        name: str,
        reading: int,
        writing: int,
        *,
        log: Path,
        kill: Callable[[], object] = lambda: None,
    ) -> None:
        self.name, self._log, self._kill = name, log, kill
        self._reading, self._writing = reading, writing
        self._numbers = itertools.count(1)
        self._answers: queue.SimpleQueue[tuple[int, list[Any]] | None] = queue.SimpleQueue()
        self._watched: dict[int, int] = {}
        self.gone = False
        """True if the agent has ended."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name=f"agent of {name}", daemon=True)
        self._thread.start()
        self._dismissed = 0.0
        self.slowest = 0.0
        """Time of the slowest reply so far, in seconds."""

    @cached_property
    def netns(self) -> str:
        """The agent's network namespace as the kernel inside names it: `net:[4026531840]`."""
        (name,) = self._answer(0)
        return str(name)

    def do(self, *requests: Sequence[Any]) -> list[Any]:
        """Send several requests; return their results, or raise the first `OSError` among them."""
        self.netns  # noqa: B018 # wait until it has introduced itself
        with self._lock:
            number = next(self._numbers)
            line = json.dumps([number, packed(requests)], separators=(",", ":"))
            began = time.perf_counter()
            try:
                data = line.encode() + b"\n"
                while data:
                    data = data[os.write(self._writing, data) :]
            except OSError as error:
                raise self._lost("no longer listens") from error
            results = self._answer(number)
            self.slowest = max(self.slowest, time.perf_counter() - began)
        return [_unpacked(result) for result in results]

    def sync(self) -> None:
        """Wait until the agent has reported all data that had already reached its sockets."""
        self.do(["sync"])

    def watch(self, handle: int) -> int:
        """Return a descriptor that is readable while the agent's socket has data."""
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watched[handle] = descriptor
        self.do(["watch", handle])
        return descriptor

    def forget(self, handle: int) -> None:
        """Close a socket of the agent."""
        descriptor = self._watched.pop(handle, None)
        if not self.gone:
            with contextlib.suppress(AgentLost):
                self.do(["close", handle])
        if descriptor is not None:
            os.close(descriptor)

    def dismiss(self) -> None:
        """Close the agent's input, so that the agent ends; do not wait for the end."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
            self._dismissed = time.monotonic()

    def close(self) -> None:
        """End the agent; kill it if it does not end in time."""
        self.dismiss()
        self._thread.join(max(0.0, self._dismissed + ENDING_BOUND - time.monotonic()))
        if self._thread.is_alive():
            self._kill()
            self._thread.join(ENDING_BOUND)

    # --- listening

    def _listen(self) -> None:
        pending = b""
        while True:
            try:
                more = os.read(self._reading, _CHUNK)
            except OSError:
                more = b""
            if not more:
                break
            *lines, pending = (pending + more).split(b"\n")
            for line in lines:
                try:
                    number, results, idle, ready = json.loads(line)
                except ValueError:
                    break
                for handle in idle:
                    if (descriptor := self._watched.get(handle)) is not None:
                        with contextlib.suppress(BlockingIOError):
                            os.eventfd_read(descriptor)
                self._wake(ready)
                if number or results:
                    self._answers.put((number, results))
        self.gone = True
        self._wake(list(self._watched))
        self._answers.put(None)
        os.close(self._reading)

    def _wake(self, handles: Sequence[int]) -> None:
        for handle in handles:
            if (descriptor := self._watched.get(handle)) is not None:
                os.eventfd_write(descriptor, 1)

    def _answer(self, number: int) -> list[Any]:
        try:
            while (answer := self._answers.get(timeout=ANSWER_BOUND)) is not None:
                if answer[0] == number:
                    return answer[1]
        except queue.Empty:
            raise self._lost(f"did not reply within {ANSWER_BOUND:g} s") from None
        self._answers.put(None)
        raise self._lost("has ended")

    def _lost(self, how: str) -> AgentLost:
        output = ""
        with contextlib.suppress(OSError):
            output = self._log.read_text("utf-8", errors="replace").strip()[-2000:]
        return AgentLost(
            f"the probe agent in container {self.name} {how}; its output is {output!r}. "
            "It runs by the runtime's exec, with the Python of the test image"
        )


class AgentNetNS(NetNS):
    """A container's netns, whose sockets the agent opens; `fd` is a descriptor of the netns.

    With `own_stack` the container has a user-space network stack. The netns on the host then does
    not show the container's network state, and setns does not reach it. Without `own_stack` the id
    is that of the netns that the agent reports. It differs from `fd` if exec enters another netns.
    """

    __slots__ = ("agent", "own_stack")

    def __init__(self, fd: int, agent: AgentClient, *, own_stack: bool) -> None:
        super().__init__(fd)
        self.agent, self.own_stack = agent, own_stack
        if not own_stack:
            self.id = self.id[0], int(agent.netns.strip("net:[]"))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the body inside the netns; raise `UserspaceStack` if it has a user-space stack."""
        by_kernel(self)
        with super().entered():
            yield

    def outside(self) -> NetNS:
        """Return a plain handle on the host's netns of the container; the caller closes it."""
        return NetNS(os.dup(self.fd))

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket inside the container, which is used like a local one.

        With `own_stack` a packet socket (AF_PACKET) is opened in the netns that the host has for
        the container. The container's stack sends and receives its packets there.
        """
        if self.own_stack and family == socket.AF_PACKET:
            with self.outside() as space:
                return space.socket(family, kind, protocol)
        return cast("socket.socket", RemoteSocket(self.agent, family, kind, protocol))


def by_kernel(space: NetNS) -> NetNS:
    """Return the handle `space` if the host's kernel has the network state of that netns.

    Raises `UserspaceStack` if the container has its own network stack.
    """
    if isinstance(space, AgentNetNS) and space.own_stack:
        raise UserspaceStack(space.agent.name)
    return space


class UserspaceStack(Exception):
    """A test asks the host's kernel about a container that has a user-space network stack.

    The test is then *unsupported*: it has no verdict about the runtime (`harness.plugin.leaks`).
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"container {name} has a user-space network stack, which the host's kernel neither "
            "shows nor changes"
        )
        self.name = name


def _unpacked(value: Any) -> Any:
    match value:
        case {"b": text}:
            return base64.b64decode(text)
        case {"e": number}:
            raise OSError(number, os.strerror(number))
        case {"x": text}:
            raise ValueError(text)
        case list():
            return tuple(_unpacked(item) for item in value)
    return value


class RemoteSocket:
    """Socket in a container, with those parts of `socket.socket` that this project uses.

    Only one thread may use the socket.
    """

    def __init__(
        self, agent: AgentClient, family: int, kind: int, protocol: int = 0, *, handle: int = 0
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
        """Return a descriptor, only for polling, that is readable while this socket has data."""
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
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # no data yet
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

    def __getattr__(self, name: str) -> Any:
        """Return a method of the agent's socket that does not wait, such as `bind`."""
        if name not in SOCKET_METHODS:
            raise AttributeError(name)
        return partial(self._do, name)

    def connect_ex(self, address: Any) -> int:
        """As `socket.socket.connect_ex`."""
        code: int = self._do("connect_ex", address)
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
        """As `socket.socket.sendto`; the flags are optional."""
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
        """As `socket.socket.recvmsg`, but with `MSG_ERRQUEUE` never wait."""
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


def with_cables(
    links: Mapping[str, rtnetlink_dump.Link], space: AgentNetNS
) -> dict[str, rtnetlink_dump.Link]:
    """Return the links with kind, carrier and peer as the host's kernel reports them."""
    with space.outside() as outside, Netlink(outside) as netlink:
        cables = {link.name: link for link in rtnetlink_dump.links(netlink)}
    return {
        name: link._replace(
            kind=cable.kind, carrier=cable.carrier, peer=cable.peer, peer_nsid=cable.peer_nsid
        )
        if (cable := cables.get(name))
        else link
        for name, link in links.items()
    }


def of_main_table(routes: Sequence[rtnetlink_dump.Route]) -> list[rtnetlink_dump.Route]:
    """Return those of the routes that Linux would have in its main table.

    A user-space stack also lists the routes of `lo`, which Linux has in another table.
    """
    return [
        route for route in routes if route.oif != rtnetlink.LO and _version(route) == route.family
    ]


def _version(route: rtnetlink_dump.Route) -> int:
    for item in (route.destination, route.via):
        if item is not None:
            return item.version
    return route.family


def sysctl(space: AgentNetNS, key: str) -> str:
    """Return the value of a sysctl, as a process inside the container reads it."""
    content: bytes = space.agent.do(["load", sysctl_path(key)])[0]
    return " ".join(content.decode().split())
