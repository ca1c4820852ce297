"""The daemon: `python -m runtime.daemon.daemon ROOT`, its listening socket as descriptor 3."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

from linux.proc import pidfd as pidfd_of
from linux.syscalls import pidfd_getfd
from runtime.daemon.client import LISTENING, LOG
from runtime.daemon.dns_names import DnsNames
from runtime.daemon.dns_server import Resolver
from runtime.daemon.dns_socket import DnsSockets, lead_to, namespace, open_ears
from runtime.daemon.relay import End, Relay, RelayQuota
from runtime.daemon.tasks import AGAIN, EXHAUSTED
from runtime.init.fds import MOST
from runtime.init.init import ProcessTitle, arguments_area
from runtime.network.ports import relays_of
from runtime.records import ContainerRecord, resolves_names
from runtime.store import Store

TITLE: Final = b"mydocker-attendant"


class Daemon:
    """The containers that the daemon serves, and their resolvers and relays."""

    def __init__(self, store: Store, listening: socket.socket) -> None:
        self._store, self._listening = store, listening
        self._names, self._room = DnsNames(store), RelayQuota()
        self._attended: dict[str, ExitStack] = {}
        self._has_adopted = False
        self._held: list[ExitStack] = []
        self._over = asyncio.get_running_loop().create_future()
        listening.setblocking(False)

    async def serve(self) -> None:
        """Serve until no container is left."""
        while self._accept():
            pass  # the client that started this process has reported the reason
        self._adopt()
        self._has_adopted = True
        asyncio.get_running_loop().add_reader(self._listening, self._accept)
        await self._over
        with suppress(FileNotFoundError):  # first: later the path may be the next daemon's
            if not os.path.getsize(f"{self._store.root}/{LOG}"):
                os.unlink(f"{self._store.root}/{LOG}")
        # From now on clients cannot find it; connections that wait are closed.
        with suppress(FileNotFoundError):
            os.unlink(self._store.attendant)
        os._exit(0)

    # --- messages from clients -----------------------------------------------------

    def _accept(self) -> bool:
        try:
            caller, _ = self._listening.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._accept_later()
            return False
        caller.setblocking(False)
        try:
            self._hear(caller)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            loop.add_reader(caller, self._hear_later, caller)
        return True

    def _accept_later(self) -> None:
        """Leave new clients in the queue for a while, instead of retrying without pause."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening)
        loop.call_later(AGAIN, loop.add_reader, self._listening, self._accept)

    def _hear_later(self, caller: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(caller)
        self._hear(caller)

    def _hear(self, caller: socket.socket) -> None:
        message, fds, flags, _ = socket.recv_fds(caller, 1 << 16, MOST)
        with ExitStack() as stack:
            stack.callback(caller.close)
            if flags & socket.MSG_CTRUNC:  # too few free descriptors: the client tries again
                for fd in fds:
                    os.close(fd)
                return
            if not message or self._over.done():
                return  # a client whose connection is closed turns to the next daemon
            asked = json.loads(message)
            if identity := asked.get("attend"):
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    self._attend(identity, asked["relays"], fds, names=asked["names"])
            elif identity := asked.get("forget"):
                self._release(identity)
            else:
                self._adopt()
            self._leave_if_alone()
            with suppress(OSError):  # the very first client does not wait for the reply
                caller.send(b"last" if self._over.done() else b"done")
            if self._over.done():
                # The client waits until this process has ended.
                self._held.append(stack.pop_all())

    def _attend(
        self, identity: str, targets: Sequence[tuple[str, int]], fds: Sequence[int], *, names: bool
    ) -> None:
        # The present rules may redirect to sockets of this daemon or of one that was killed.
        others = identity in self._attended or not self._has_adopted
        pidfd, *rest = fds
        relays, rest = rest[: len(targets)], rest[len(targets) :]
        self._release(identity)
        with ExitStack() as stack:
            self._until_it_ends(stack, identity, pidfd)
            if relays:
                ends = ((address, port) for address, port in targets)
                self._relay(stack, zip(relays, ends, strict=True))
            if names:
                udp, tcp = rest
                ears = DnsSockets(socket.socket(fileno=udp), socket.socket(fileno=tcp))
                self._resolve(stack, identity, pidfd, ears)
                if others:
                    with namespace(pidfd) as space:
                        lead_to(space, ears)
            self._attended[identity] = stack.pop_all()

    def _relay(self, stack: ExitStack, pairs: Iterable[tuple[int, End]]) -> None:
        """Relay connections and datagrams of these sockets, all of one container."""
        part = self._room.part()
        stack.callback(part.close)
        for fd, target in pairs:
            stack.callback(Relay(socket.socket(fileno=fd), target, part).close)

    def _resolve(self, stack: ExitStack, identity: str, pidfd: int, ears: DnsSockets) -> None:
        stack.callback(Resolver(identity, self._names, ears, pidfd).close)

    def _until_it_ends(self, stack: ExitStack, identity: str, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        stack.callback(os.close, pidfd)
        loop.add_reader(pidfd, self._drop, identity)
        stack.callback(loop.remove_reader, pidfd)

    def _release(self, identity: str) -> None:
        if identity in self._attended:
            self._attended.pop(identity).close()

    def _drop(self, identity: str) -> None:
        self._release(identity)
        self._leave_if_alone()

    def _leave_if_alone(self) -> None:
        if not self._attended and not self._over.done():
            self._over.set_result(None)

    # --- adoption ---------------------------------------------------------------------

    def _adopt(self) -> None:
        """Serve the containers that a killed daemon has served.

        Skip a container in which no socket can be bound, for example because its processes have
        bound every port; serve the others.
        """
        for identity in self._store.ids():
            try:
                found = ContainerRecord(self._store.config(identity), self._store.state(identity))
                if found.running and identity not in self._attended:
                    self._adopt_one(found)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            except OSError as error:
                sys.stderr.write(f"container {identity[:12]}: {error}\n")  # into the log

    def _adopt_one(self, found: ContainerRecord) -> None:
        state = found.state
        relays, names = relays_of(state.ports, state.endpoints), resolves_names(state.endpoints)
        pidfd = pidfd_of(state.pid, state.born)
        if pidfd is None:
            return
        with ExitStack() as stack:
            self._until_it_ends(stack, found.id, pidfd)
            if relays:
                ends = ((item.address, item.port) for item in relays)
                kept = (pidfd_getfd(pidfd, item.fd) for item in relays)
                self._relay(stack, zip(kept, ends, strict=True))
            if names:
                with namespace(pidfd) as space:
                    self._resolve(stack, found.id, pidfd, open_ears(space))
            if relays or names:
                self._attended[found.id] = stack.pop_all()


def main(root: str) -> None:
    """Serve the containers of a state directory until none is left."""
    ProcessTitle(TITLE, arguments_area()).take()
    asyncio.run(_serve(root))


async def _serve(root: str) -> None:
    # Two listening sockets and a pidfd per container, and a socket per pending DNS query.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    await Daemon(Store(root), socket.socket(fileno=LISTENING)).serve()


if __name__ == "__main__":
    main(sys.argv[1])
