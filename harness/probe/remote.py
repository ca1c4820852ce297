"""Sockets inside a container, opened by an agent there, that can be used as if they were here.

The agent (`harness.probe.agent`) is started once per container through the runtime's own
exec. What is said to it goes over its standard input and output: the tested network has no
part in it. Whoever can use a socket of a namespace can use one of these: `Inside` is a
handle on a container's network namespace that opens its sockets there.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

from harness.probe.remote_socket import RemoteSocket
from linux.netns import NetNS

SOURCE: Final = Path(__file__).with_name("agent.py")
"""The agent: one file, told to the interpreter as an argument."""
COMMAND: Final = ("/usr/bin/python3", "-I", "-S", "-c", SOURCE.read_text("utf-8"))
"""How it is started inside. The interpreter is the test image's: `runtime.imagepython`."""
ANSWER_BOUND: Final = 30.0
"""Seconds that an agent may take to answer. It takes a fraction of a millisecond."""
ENDING_BOUND: Final = 5.0
"""Seconds that an agent, and the exec that it was started by, may take to end when told to."""
_CHUNK: Final = 1 << 20


class AgentLost(Exception):
    """An agent has ended, or does not answer; the message tells what it said.

    No `OSError`: those tell of the tested network.
    """


class Agent:
    """The near end of an agent. Close it, and the agent ends.

    `reading` and `writing` are descriptors of its output and input, which belong to it from
    now on; `log` tells what it said on standard error. It need not have begun yet: who asks
    first waits, and `AgentLost` is raised there when it does not introduce itself. `kill` is
    called when it does not end though its input has.
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
        """Whether it has ended."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name=f"agent of {name}", daemon=True)
        self._thread.start()
        self._dismissed = 0.0
        self.slowest = 0.0
        """Seconds that its slowest answer has taken."""

    @cached_property
    def netns(self) -> str:
        """Its network namespace in the words of its own kernel: `net:[4026531840]`."""
        (told,) = self._answer(0)
        return str(told)

    def do(self, *asked: Sequence[Any]) -> list[Any]:
        """Have it do several things; their results, or the first `OSError`."""
        self.netns  # noqa: B018 # it has introduced itself by then
        with self._lock:
            number = next(self._numbers)
            line = json.dumps([number, _packed(asked)], separators=(",", ":"))
            began = time.perf_counter()
            try:
                data = line.encode() + b"\n"
                while data:
                    data = data[os.write(self._writing, data) :]
            except OSError as error:
                raise self._lost("does not listen any more") from error
            results = self._answer(number)
            self.slowest = max(self.slowest, time.perf_counter() - began)
        return [_unpacked(result) for result in results]

    def sync(self) -> None:
        """Return once everything is known that had come to its sockets before."""
        self.do(["sync"])

    def watch(self, handle: int) -> int:
        """A descriptor that can be read while a socket has something to be read."""
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watched[handle] = descriptor
        self.do(["watch", handle])
        return descriptor

    def forget(self, handle: int) -> None:
        """Close a socket."""
        descriptor = self._watched.pop(handle, None)
        if not self.gone:
            with contextlib.suppress(AgentLost):
                self.do(["close", handle])
        if descriptor is not None:
            os.close(descriptor)

    def dismiss(self) -> None:
        """Have it end, and do not wait for that."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
            self._dismissed = time.monotonic()

    def close(self) -> None:
        """End it, by force where it does not end by itself."""
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
                self._rouse(ready)
                if number or results:
                    self._answers.put((number, results))
        self.gone = True
        self._rouse(list(self._watched))
        self._answers.put(None)
        os.close(self._reading)

    def _rouse(self, handles: Sequence[int]) -> None:
        for handle in handles:
            if (descriptor := self._watched.get(handle)) is not None:
                os.eventfd_write(descriptor, 1)

    def _answer(self, number: int) -> list[Any]:
        try:
            while (answer := self._answers.get(timeout=ANSWER_BOUND)) is not None:
                if answer[0] == number:
                    return answer[1]
        except queue.Empty:
            raise self._lost(f"has not answered for {ANSWER_BOUND:g} s") from None
        self._answers.put(None)
        raise self._lost("has ended")

    def _lost(self, how: str) -> AgentLost:
        said = ""
        with contextlib.suppress(OSError):
            said = self._log.read_text("utf-8", errors="replace").strip()[-2000:]
        return AgentLost(
            f"the probe's agent in container {self.name} {how}; it said {said!r}. It is started "
            "through the runtime's exec, and runs on the Python of the test image"
        )


class Inside(NetNS):
    """A container's network namespace, by the descriptor `fd`, whose sockets its agent opens.

    With `own_stack` the container has a network stack of its own: what the namespace has on
    the host is not what the container sees, and nobody can enter. Else it is known by what
    the agent says of where it is, which is elsewhere when an exec leads elsewhere.
    """

    __slots__ = ("agent", "own_stack")

    def __init__(self, fd: int, agent: Agent, *, own_stack: bool) -> None:
        super().__init__(fd)
        self.agent, self.own_stack = agent, own_stack
        if not own_stack:
            self.id = self.id[0], int(agent.netns.strip("net:[]"))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the body inside; `OwnStack` when that would be beside the point."""
        by_kernel(self)
        with super().entered():
            yield

    def outside(self) -> NetNS:
        """The same namespace, as the host has it; the caller closes it."""
        return NetNS(os.dup(self.fd))

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of the container's, used as one of our own is.

        Where packets leave a stack of its own, and come to it, is an interface of the host's.
        """
        if self.own_stack and family == socket.AF_PACKET:
            with self.outside() as space:
                return space.socket(family, kind, protocol)
        return cast("socket.socket", RemoteSocket(self.agent, family, kind, protocol))


def seen_from_host(space: NetNS, stack: contextlib.ExitStack) -> NetNS:
    """A namespace as the host has it, which `stack` closes; one that is so already as it is."""
    return stack.enter_context(space.outside()) if isinstance(space, Inside) else space


def by_kernel(space: NetNS) -> NetNS:
    """A namespace whose state the kernel has; `OwnStack` where a container has its own."""
    if isinstance(space, Inside) and space.own_stack:
        raise OwnStack(space.agent.name)
    return space


class OwnStack(Exception):
    """Something is asked of the kernel about a container that has a stack of its own.

    No verdict about the runtime: the test is *unsupported* (`harness.guarding`).
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"container {name} has a network stack of its own, which the kernel cannot be asked "
            "about, nor told to change"
        )
        self.name = name


def _packed(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b": base64.b64encode(value).decode()}
    if isinstance(value, tuple | list):
        return [_packed(item) for item in value]
    return value


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
