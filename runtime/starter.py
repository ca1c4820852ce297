"""A small process that containers are forked from, for a caller that starts many of them.

A fork costs by the size of who forks, and a library's caller may be of any size.
The starter is a fresh interpreter with no more in it than a container's pid 1
needs (`runtime.starting`). It makes pid 1 by one clone3(2), in all its namespaces
at once, where the caller itself would fork twice (see `runtime.init`); and what a
pid 1 is made of stays shared between all of them.

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

import os
import pickle
import socket
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

import runtime
from runtime.errors import UnsupportedError
from runtime.init import Launch
from runtime.starting import HELLO

_BEGIN: Final = (
    "import sys; sys.path[:] = {path!r}; from runtime import starting; starting.serve({fd})"
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
        if here.recv(len(HELLO)) != HELLO:
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
