"""Client of the daemon: start and stop the service for a container."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from linux.netns import NetNS
from runtime.errors import UnsupportedError
from runtime.init.fork_server import Spawn, fork_here
from runtime.init.status_pipe import MAX_DESCRIPTORS
from runtime.store import LOG, SOCKET, Store

if TYPE_CHECKING:
    from runtime.network.ports import RelayedPort

_DAEMON: Final = "runtime.daemon.daemon:run"
_BOUND: Final = 10.0
"""Bound on the daemon's reply before another daemon is started in its place, in seconds."""


class DaemonClient:
    """Client of the one daemon of a store."""

    def __init__(self, store: Store, spawn: Spawn = fork_here) -> None:
        self._store, self._spawn = store, spawn

    def serve(
        self,
        identity: str,
        pidfd: int,
        *,
        netns: NetNS | None,
        relays: Sequence[RelayedPort],
        began: bool = False,
    ) -> None:
        """Serve a container until the process behind `pidfd` ends.

        With `netns`, the resolver's sockets are open in that netns on return. DNS replies may have
        to wait until a new daemon has started. An earlier service of the same container is
        replaced. With `began` there is none, because the container has just started.
        """
        # This module imports nftables, which most calls do not need.
        from runtime.daemon.dns_socket import open_dns_sockets

        sockets = open_dns_sockets(netns, first=began) if netns is not None else None
        try:
            own = [pidfd, *(item.fd for item in relays)]
            if sockets is not None:
                own += [sockets.udp.fileno(), sockets.tcp.fileno()]
            if len(own) > MAX_DESCRIPTORS:
                raise UnsupportedError(
                    f"relay ports of container {identity[:12]}",
                    f"it publishes {len(relays)} ports on the IPv6 loopback address",
                    f"the DNS daemon accepts {MAX_DESCRIPTORS} descriptors at a time, "
                    "some of them for other purposes",
                    "publish on another address, such as 0.0.0.0:8000-8299:80-379",
                )
            targets = [(item.address, item.port) for item in relays]
            request = {"serve": identity, "relays": targets, "names": sockets is not None}
            message = json.dumps(request).encode()
            deadline = time.monotonic() + _BOUND
            # If that daemon is about to exit, the next attempt starts another one.
            while not _request(self._store, message, own) and not self._begin(message, own):
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            raise UnsupportedError(
                f"resolve names and relay ports for container {identity[:12]}",
                f"the DNS daemon did not reply within {_BOUND:.0f} s",
                "the daemon is stopped, or the machine is overloaded",
                f"kill the daemon: the next call starts another (log: {self._store.root}/{LOG})",
            ) from None
        finally:
            for opened in sockets or ():
                opened.close()

    def forget(self, identity: str) -> None:
        """Stop the service for a container; on return no descriptor of its netns is open."""
        with suppress(TimeoutError):
            _request(self._store, json.dumps({"forget": identity}).encode(), [])

    def revive(self) -> None:
        """Start another daemon if the last one was killed; it finds its containers by itself.

        The daemon removes its socket when it exits normally. A socket without a daemon therefore
        shows that the last one was killed.
        """
        if not _is_running(self._store):
            self._begin(b"{}", [])

    def _begin(self, message: bytes, fds: Sequence[int]) -> bool:
        """Start a daemon and send it the message; return false if a daemon already runs."""
        store = self._store
        with store.locked():
            if _is_running(store):
                return False
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                _bind(store, listening)
                # The kernel queues a message that is sent before the daemon listens.
                opened = _connect(store)
                assert opened is not None
                with opened:
                    socket.send_fds(opened, [message], fds)
                    self._start(listening.fileno())
        return True

    def _start(self, listening: int) -> None:
        """Start the daemon with the descriptor of its listening socket; return when it runs."""
        root = self._store.root
        begun, begins = os.pipe()  # ends when the daemon has closed what it does not need
        with os.fdopen(begun, "rb") as pipe:
            with os.fdopen(begins, "wb"), open(f"{root}/{LOG}", "ab", opener=_private) as log:
                keep = (listening, log.fileno(), begins)
                child = self._spawn(_DAEMON, (root, *keep), keep)
            pipe.read()
        if child:
            os.waitpid(child, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_running(store: Store) -> bool:
    """Return whether a daemon has the socket open, even if it does not listen yet."""
    try:
        opened = _connect(store, wait=False)
    except BlockingIOError:  # the queue of connections is full
        return True
    if opened is not None:
        opened.close()
    return opened is not None


def _connect(store: Store, *, wait: bool = True) -> socket.socket | None:
    """Connect to the daemon; return `None` if no daemon runs.

    Wait while the daemon's queue is full (unix(7)).
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # By descriptor, because the path may be longer than a socket address allows (unix(7)).
        directory = os.open(store.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        opened.close()
        raise
    # With a Python time-out the kernel does not wait for a place in the queue.
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


def _request(store: Store, message: bytes, fds: Sequence[int]) -> bool:
    """Send the daemon a request and wait until it is done; return false if no daemon runs."""
    opened = _connect(store)
    if opened is None:
        return False
    with opened:
        try:
            socket.send_fds(opened, [message], fds)
            reply = opened.recv(16)
            if reply == b"last":  # the daemon exits, and has exited when it closes the connection
                opened.recv(1)
        except ConnectionError:
            return False
        return bool(reply)


def _bind(store: Store, listening: socket.socket) -> None:
    directory = os.open(store.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.lexists(store.daemon_socket):
            os.unlink(store.daemon_socket)
        listening.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        listening.listen(64)
    finally:
        os.close(directory)
