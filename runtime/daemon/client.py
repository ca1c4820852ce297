"""mydocker's side of the attendant: have it attend to a container, or no more."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import runtime
from linux.netns import NetNS
from runtime.errors import UnsupportedError
from runtime.init import init
from runtime.init.fds import MOST
from runtime.network.ports import RelayedPort
from runtime.store import SOCKET, Store

LOG: Final = "attendant.log"
LISTENING: Final = 3
"""The descriptor on which the attendant finds its socket."""
_BOUND: Final = 10.0
"""How long it may take to answer, in seconds, before another is started in its place."""


class DaemonClient:
    """Has the one attendant of a store told what to do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def attend(
        self,
        identity: str,
        pidfd: int,
        *,
        netns: NetNS | None,
        relays: Sequence[RelayedPort],
        began: bool = False,
    ) -> None:
        """Have a container attended to until the process behind `pidfd` ends.

        With `netns` its questions are heard there, from now on, though they may be answered
        only when a new attendant has got to run. What was attended to before is replaced;
        nothing was where the container `began` just now.
        """
        from runtime.daemon.dns_socket import open_ears  # brings nft, which most calls do without

        ears = open_ears(netns, first=began) if netns is not None else None
        try:
            own = [pidfd, *(item.fd for item in relays)]
            if ears is not None:
                own += [ears.udp.fileno(), ears.tcp.fileno()]
            if len(own) > MOST:
                raise UnsupportedError(
                    f"relay ports of container {identity[:12]}",
                    f"there are {len(relays)} on the IPv6 loopback address",
                    f"the attendant takes {MOST} descriptors at a time, some for other ends",
                    "publish on other addresses, such as 0.0.0.0:8000-8299:80-379",
                )
            targets = [(item.address, item.port) for item in relays]
            asked = {"attend": identity, "relays": targets, "names": ears is not None}
            message = json.dumps(asked).encode()
            deadline = time.monotonic() + _BOUND
            # Should it be just leaving, another takes its place.
            while not _say(self._store, message, own) and not self._begin(message, own):
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            raise UnsupportedError(
                f"answer names and relay ports for container {identity[:12]}",
                f"the attendant has said nothing for {_BOUND:.0f} s",
                "it was stopped, or this machine is overloaded",
                f"{self._store.root}/{LOG}; kill it: the next call starts another",
            ) from None
        finally:
            for opened in ears or ():
                opened.close()

    def forget(self, identity: str) -> None:
        """Have a container attended to no more: on return nothing of its namespace is held."""
        with suppress(TimeoutError):
            _say(self._store, json.dumps({"forget": identity}).encode(), [])

    def revive(self) -> None:
        """Start another attendant when the last one was killed; it finds out whom to attend to.

        For when there was one: its socket is there until it leaves by itself.
        """
        if not _is_there(self._store):
            self._begin(b"{}", [])

    def _begin(self, message: bytes, fds: Sequence[int]) -> bool:
        """Start an attendant unless there is one, and tell it; false when there was one."""
        store = self._store
        with store.locked():
            if _is_there(store):
                return False
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                _bind(store, listening)
                # What is said before it listens is kept for it.
                opened = _connected(store)
                assert opened is not None
                with opened:
                    socket.send_fds(opened, [message], fds)
                    self._spawn(listening.fileno())
        return True

    def _spawn(self, listening: int) -> None:
        root = self._store.root
        log = os.open(f"{root}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _execute(root, listening, log)
        finally:
            os.close(log)


def _is_there(store: Store) -> bool:
    """Whether somebody has the socket that callers wait at, if only to listen to it soon."""
    try:
        opened = _connected(store, wait=False)
    except BlockingIOError:  # so many wait there already that the kernel takes no more
        return True
    if opened is not None:
        opened.close()
    return opened is not None


def _connected(store: Store, *, wait: bool = True) -> socket.socket | None:
    """A connection, `None` when nobody is there; wait while too many others do (unix(7))."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # By a descriptor, because the path may be longer than an address can be (unix(7)).
        directory = os.open(store.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        opened.close()
        raise
    # Python's time-out would have the kernel not wait at all for room in the queue.
    bound = struct.pack("ll", int(_BOUND), int(_BOUND % 1 * 1_000_000))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
    opened.setblocking(wait)
    try:
        opened.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError):
        opened.close()
        return None
    except BlockingIOError as error:
        opened.close()
        if wait:
            raise TimeoutError from error
        raise
    finally:
        os.close(directory)
    opened.settimeout(_BOUND)
    return opened


def _say(store: Store, message: bytes, fds: Sequence[int]) -> bool:
    """Tell it, and wait until it is done; false when nobody is there."""
    opened = _connected(store)
    if opened is None:
        return False
    with opened:
        try:
            socket.send_fds(opened, [message], fds)
            said = opened.recv(16)
            if said == b"last":  # it leaves, and is not there any more when it hangs up
                opened.recv(1)
        except ConnectionError:
            return False
        return bool(said)


def _bind(store: Store, listening: socket.socket) -> None:
    directory = os.open(store.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.lexists(store.attendant):
            os.unlink(store.attendant)
        listening.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        listening.listen(64)
    finally:
        os.close(directory)


def _execute(root: str, listening: int, log: int) -> None:
    """Execute the attendant as a process of nobody's."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    argv = [sys.executable, "-m", "runtime.daemon.daemon", root]
    nothing = os.open(os.devnull, os.O_RDWR)
    child = init.fork()
    if not child:
        try:
            init.forget_parent({listening, log, nothing})
            if os.fork():
                os._exit(0)
            for target, fd in ((0, nothing), (1, log), (2, log), (LISTENING, listening)):
                os.dup2(fd, target)
                os.set_inheritable(target, True)  # also when it had this number already
            os.closerange(LISTENING + 1, os.sysconf("SC_OPEN_MAX"))
            os.chdir("/")
            os.execve(argv[0], argv, environment)  # noqa: S606 - no shell is what we want
        finally:
            os._exit(127)
    os.close(nothing)
    os.waitpid(child, 0)
