"""The daemon: a process that serves the containers of a state directory."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Final, NoReturn

from linux.proc import pidfd as pidfd_of
from linux.syscalls import pidfd_getfd
from runtime.daemon.dns_names import DnsNames
from runtime.daemon.dns_server import Resolver
from runtime.daemon.dns_socket import DnsSockets, namespace, open_dns_sockets, redirect_queries
from runtime.daemon.relay import End, Relay, RelayQuota
from runtime.daemon.tasks import AGAIN, EXHAUSTED
from runtime.init import init
from runtime.init.init import set_title
from runtime.init.status_pipe import MAX_DESCRIPTORS
from runtime.network.ports import relays_of
from runtime.records import ContainerRecord, resolves_names
from runtime.store import LOG, Store

TITLE: Final = b"mydocker-daemon"


class Daemon:
    """The containers that the daemon serves, and their resolvers and relays."""

    def __init__(self, store: Store, listening: socket.socket) -> None:
        self._store, self._listening = store, listening
        self._names, self._quota = DnsNames(store), RelayQuota()
        self._served: dict[str, ExitStack] = {}
        self._has_adopted = False
        self._waiting_clients: list[ExitStack] = []
        self._finished = asyncio.get_running_loop().create_future()
        listening.setblocking(False)

    async def serve(self) -> None:
        """Serve until no container is left."""
        while self._accept():
            pass  # the client that started this process has reported the reason
        self._adopt()
        self._has_adopted = True
        asyncio.get_running_loop().add_reader(self._listening, self._accept)
        await self._finished
        with suppress(FileNotFoundError):  # first: later the path may be the next daemon's
            if not os.path.getsize(f"{self._store.root}/{LOG}"):
                os.unlink(f"{self._store.root}/{LOG}")
        # From now on clients cannot find the daemon; waiting connections are closed.
        with suppress(FileNotFoundError):
            os.unlink(self._store.daemon_socket)
        os._exit(0)

    # --- messages from clients -----------------------------------------------------

    def _accept(self) -> bool:
        try:
            client, _ = self._listening.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._accept_later()
            return False
        client.setblocking(False)
        try:
            self._receive(client)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            loop.add_reader(client, self._receive_later, client)
        return True

    def _accept_later(self) -> None:
        """Leave new clients in the queue for a while, instead of retrying in a busy loop."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        loop.call_later(AGAIN, loop.add_reader, self._listening, self._accept)

    def _receive_later(self, client: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(client)
        self._receive(client)

    def _receive(self, client: socket.socket) -> None:
        message, fds, flags, _ = socket.recv_fds(client, 1 << 16, MAX_DESCRIPTORS)
        with ExitStack() as stack:
            stack.callback(client.close)
            if flags & socket.MSG_CTRUNC:  # too few free descriptors: the client tries again
                for fd in fds:
                    os.close(fd)
                return
            if not message or self._finished.done():
                return  # a client whose connection is closed turns to the next daemon
            request = json.loads(message)
            if identity := request.get("serve"):
                with suppress(ProcessLookupError):  # the container has ended meanwhile
                    self._serve(identity, request["relays"], fds, names=request["names"])
            elif identity := request.get("forget"):
                self._release(identity)
            else:
                self._adopt()
            self._exit_if_unused()
            with suppress(OSError):  # the very first client does not wait for the reply
                client.send(b"last" if self._finished.done() else b"done")
            if self._finished.done():
                # The client waits until this process has ended.
                self._waiting_clients.append(stack.pop_all())

    def _serve(
        self, identity: str, targets: Sequence[tuple[str, int]], fds: Sequence[int], *, names: bool
    ) -> None:
        # The present rules may redirect to sockets of this daemon or of one that was killed.
        others = identity in self._served or not self._has_adopted
        pidfd, *rest = fds
        relays, rest = rest[: len(targets)], rest[len(targets) :]
        self._release(identity)
        with ExitStack() as stack:
            self._until_exit(stack, identity, pidfd)
            if relays:
                ends = ((address, port) for address, port in targets)
                self._relay(stack, zip(relays, ends, strict=True))
            if names:
                udp, tcp = rest
                sockets = DnsSockets(socket.socket(fileno=udp), socket.socket(fileno=tcp))
                self._resolve(stack, identity, pidfd, sockets)
                if others:
                    with namespace(pidfd) as space:
                        redirect_queries(space, sockets)
            self._served[identity] = stack.pop_all()

    def _relay(self, stack: ExitStack, pairs: Iterable[tuple[int, End]]) -> None:
        """Relay connections and datagrams of these sockets, all of one container."""
        part = self._quota.part()
        stack.callback(part.close)
        for fd, target in pairs:
            stack.callback(Relay(socket.socket(fileno=fd), target, part).close)

    def _resolve(self, stack: ExitStack, identity: str, pidfd: int, sockets: DnsSockets) -> None:
        stack.callback(Resolver(identity, self._names, sockets, pidfd).close)

    def _until_exit(self, stack: ExitStack, identity: str, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        stack.callback(os.close, pidfd)
        loop.add_reader(pidfd, self._drop, identity)
        stack.callback(loop.remove_reader, pidfd)

    def _release(self, identity: str) -> None:
        if identity in self._served:
            self._served.pop(identity).close()

    def _drop(self, identity: str) -> None:
        self._release(identity)
        self._exit_if_unused()

    def _exit_if_unused(self) -> None:
        if not self._served and not self._finished.done():
            self._finished.set_result(None)

    # --- adoption ---------------------------------------------------------------------

    def _adopt(self) -> None:
        """Serve the containers that a killed daemon has served.

        A container in which no socket can be bound is skipped, for example because its processes
        have bound every port.
        """
        for identity in self._store.ids():
            try:
                found = ContainerRecord(self._store.config(identity), self._store.state(identity))
                if found.running and identity not in self._served:
                    self._adopt_one(found)
            except (FileNotFoundError, ProcessLookupError):
                continue  # the container has ended meanwhile
            except OSError as error:
                sys.stderr.write(f"container {identity[:12]}: {error}\n")  # this goes to the log

    def _adopt_one(self, found: ContainerRecord) -> None:
        state = found.state
        relays, names = relays_of(state.ports, state.endpoints), resolves_names(state.endpoints)
        pidfd = pidfd_of(state.pid, state.born)
        if pidfd is None:
            return
        with ExitStack() as stack:
            self._until_exit(stack, found.id, pidfd)
            if relays:
                ends = ((item.address, item.port) for item in relays)
                kept = (pidfd_getfd(pidfd, item.fd) for item in relays)
                self._relay(stack, zip(kept, ends, strict=True))
            if names:
                with namespace(pidfd) as space:
                    self._resolve(stack, found.id, pidfd, open_dns_sockets(space))
            if relays or names:
                self._served[found.id] = stack.pop_all()


def run(root: str, listening: int, log: int, begins: int) -> NoReturn:
    """Run the daemon detached from its parent, in a process that was just forked.

    The pipe `begins` is closed when the daemon is the only remaining process.
    """
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        init.forget_parent({listening, log, nothing, begins})
        if os.fork():
            os._exit(0)
        for target, fd in ((0, nothing), (1, log), (2, log)):
            os.dup2(fd, target)
        init.close_others({listening})
        os.chdir("/")
        sys.stdout = sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        main(root, listening)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def main(root: str, listening: int) -> None:
    """Serve the containers of a state directory until none is left.

    Call it in a process that was just forked. `listening` is the descriptor of the socket at which
    clients connect.
    """
    set_title(TITLE)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a closed connection is an error, not the end
    gc.freeze()  # collect the daemon's own garbage, without a copy of the parent's pages
    gc.enable()
    asyncio.run(_run(root, listening))


async def _run(root: str, listening: int) -> None:
    # Two listening sockets and a pidfd per container, and a socket per pending DNS query.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    await Daemon(Store(root), socket.socket(fileno=listening)).serve()
