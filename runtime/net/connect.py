"""Networks that a container is connected to and taken off again, running or not.

A running one is changed in three steps, so that a kill in between can be made good:
first its record says which interface is `changing`, then the kernel is changed, then
the record says what is. `follow` brings everything around the container in line with
its record, and is both the last step and the repair.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from linux.netns import NetNS
from linux.nft import Nft
from linux.syscalls import pidfd_getfd
from runtime import container
from runtime.attendant.ears import lead_nowhere
from runtime.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
    is_exhausted,
    is_full,
)
from runtime.net import modes, plug, routes
from runtime.net.networks import Networks
from runtime.plugger import Plugger, relays_of
from runtime.records import Connection, Container, ContainerState
from runtime.state import Store
from runtime.wiring import Wirer, resolves_names


class Connector:
    """Changes the connections of containers whose lock is held."""

    def __init__(self, store: Store, networks: Networks, wirer: Wirer, plugger: Plugger) -> None:
        self._store, self._networks = store, networks
        self._wirer, self._plugger = wirer, plugger

    def connect(self, found: Container, connection: Connection) -> Container:
        """Connect it to one network more; at once when it runs, else from its next start on.

        After an error it is as it was before, or as `follow` tells.
        """
        asked = f"connect container {found.name!r} to network {connection.network!r}"
        _refuse_without_own_network(asked, found)
        if any(item.network == connection.network for item in found.connections):
            raise ConflictError(asked, "it is connected to it already")
        connections = (*found.connections, connection)
        if not found.running:
            return self._written(found, found.state._replace(connections=connections))
        with _namespace(found) as netns:
            number = plug.free_number(asked, netns)
            changing = found.state._replace(changing=f"eth{number}")
            self._written(found, changing)
            try:
                endpoint = self._plugger.join(netns, found.config, connection, number)
            except BaseException:
                # What it has asked and is being answered goes on: it is where it was.
                self._followed(found._replace(state=changing), attend=False)
                raise
        endpoints = (*found.state.endpoints, endpoint)
        after = changing._replace(connections=connections, endpoints=endpoints)
        return self.follow(self._written(found, after))

    def disconnect(self, found: Container, reference: str) -> Container:
        """Take it off a network, at once when it runs; `NotFoundError` when it is not on it."""
        own = {item.network for item in found.connections}
        # One that has gone meanwhile is left by the name that it had.
        name = reference if reference in own else self._networks.named(reference).name
        asked = f"disconnect container {found.name!r} from network {name!r}"
        _refuse_without_own_network(asked, found)
        connections = tuple(item for item in found.connections if item.network != name)
        if len(connections) == len(found.connections):
            raise NotFoundError(asked, "it is not connected to it", remedy="mydocker inspect")
        state = found.state._replace(connections=connections)
        gone = [item for item in state.endpoints if item.network == name]
        if not gone:
            return self._written(found, state)
        left = tuple(item for item in state.endpoints if item.network != name)
        changing = state._replace(changing=gone[0].interface, endpoints=left)
        return self.follow(self._written(found, changing))

    def follow(self, found: Container) -> Container:
        """Bring what is around a running container in line with its record.

        `UnsupportedError` afterwards where somebody inside was in the way: it is its own loss.
        """
        written, failure = self._followed(found)
        if failure is not None:
            raise UnsupportedError(
                f"lead all traffic of container {found.name!r} by its networks",
                str(failure.strerror),
                "somebody inside has changed its interfaces, or taken its ports",
                f"mydocker restart {found.name}",
            ) from failure
        return written

    def repair(self, found: Container) -> Container:
        """The same for one at which somebody was killed: of its inside, what can be done.

        Nobody else is to be kept from anything by what is done in there.
        """
        return self._followed(found)[0]

    def _followed(
        self, found: Container, *, attend: bool = True
    ) -> tuple[Container, OSError | None]:
        """What is written down at last, and what could not be done inside.

        Whoever attends to it need not be told where its endpoints are those from before.
        """
        endpoints, failure = found.state.endpoints, None
        with _namespace(found) as netns:
            try:
                if found.state.changing not in {item.interface for item in endpoints}:
                    plug.unplug(netns, found.state.changing)
            except OSError as error:  # it is somebody else's by now
                failure = error
            self._networks.release(
                found.id,
                keep={item.network for item in endpoints},
                veths={item.veth for item in endpoints},
            )
            try:
                self._lead(found, netns, attend=attend)
            except OSError as error:
                if is_full(error) or is_exhausted(error):
                    raise
                failure = error
        self._wirer.follow(found)
        return self._written(found, found.state._replace(changing="")), failure

    def _lead(self, found: Container, netns: NetNS, *, attend: bool) -> None:
        routes.settle(netns, found.state.endpoints)
        if found.state.ports:
            with Nft(fd=_held(found, found.state.rules)) as nft:
                self._plugger.publish(nft, found.config, found.state.ports, found.state.endpoints)
        if attend:
            self._attend(found, netns)

    def _attend(self, found: Container, netns: NetNS) -> None:
        with ExitStack() as stack:
            relays = []
            for item in relays_of(found.state.ports, found.state.endpoints):
                own = _held(found, item.fd)
                stack.callback(os.close, own)
                relays.append(item._replace(fd=own))
            self._plugger.attend(found, netns, relays)
            if not resolves_names(found.state.endpoints):
                lead_nowhere(netns)

    def _written(self, found: Container, state: ContainerState) -> Container:
        if state.changing:
            self._store.mark(found.id, changing=True)
        self._store.write_state(found.id, state)
        if found.state.changing and not state.changing:
            self._store.mark(found.id, changing=False)
        return found._replace(state=state)


def _namespace(found: Container) -> NetNS:
    return NetNS.at(f"/proc/{found.state.pid}/ns/net")


def _held(found: Container, number: int) -> int:
    """A duplicate of a descriptor that the container's pid 1 holds."""
    handle = container.pidfd(found.state.pid, found.state.born)
    if handle is None:
        raise ConflictError(f"change the network of container {found.name!r}", "it just stopped")
    try:
        return pidfd_getfd(handle, number)
    finally:
        os.close(handle)


def _refuse_without_own_network(asked: str, found: Container) -> None:
    mode = found.config.network
    if modes.parse(mode).kind != "bridge":
        raise InvalidError(
            asked,
            f"its network mode is {mode}",
            "only a container with a network of its own can be on several",
            "start it with --net and the name of a network",
        )
