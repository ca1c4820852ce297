"""Names of the runtimes that are installed here and can be tested."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from harness.adapters import registry
from harness.adapters.support import rootless
from harness.model.features import Feature
from harness.model.plan import CAST, HOST, Bridge, Publish
from harness.testbench.container import Container
from harness.testbench.listener import Listener, free_port
from harness.testbench.scene import Scene
from harness.world.build import World
from linux.syscalls import in_user_namespace

ALL: Final = (
    *("bwrap", "containerd", "crun", "crun-by-hand", "docker", "docker-runsc", "lxc"),
    *("mydocker-cli", "nspawn", "podman", "podman-runc", "podman-runsc"),
    *("runc", "runc-by-hand", "runsc"),
)
ROOTLESS: Final = (
    "podman-rootless",
    "podman-rootless-bridge",
    "podman-rootless-slirp4netns",
)
"""Runtimes that an ordinary user of the host starts; their default network is no bridge."""
DOCKER: Final = "docker-rootless"
"""Runtime of an ordinary user whose default network is a bridge, in the user's own netns."""
ABSENT: Final = {
    name: absent
    for name in (*ALL, *ROOTLESS, DOCKER)
    if (absent := registry.missing(registry.load(name)))
}
"""Runtimes that are not installed, with the programs that are missing."""
_ROOT: Final = not os.geteuid() and not in_user_namespace()
"""Whether the run has the machine's root; a sandbox's root may be an ordinary user."""
_ANYBODYS: Final = ("bwrap", "containerd", "lxc", "mydocker-cli")
FOR_ROOT: Final = () if _ROOT else tuple(name for name in ALL if name not in _ANYBODYS)
"""Runtimes that need the machine's root, if the run does not have it."""
TRIED: Final = tuple(name for name in ALL if name not in ABSENT and name not in FOR_ROOT)


OWN_STACK: Final = tuple(name for name in TRIED if name.endswith("runsc"))
"""Runtimes whose containers have a user-mode network stack."""
BY_COMMAND: Final = tuple(
    name for name in TRIED if name.startswith(("docker", "podman")) and name not in OWN_STACK
)
"""Runtimes with a command line whose containers have the command itself as pid 1."""


def claiming(*features: Feature) -> tuple[str, ...]:
    """Return the runtimes of `TRIED` whose adapters declare all of these features."""
    return tuple(name for name in TRIED if registry.load(name).features.issuperset(features))


OBSTACLE: Final = rootless.obstacle()
"""Reason why this run's hosts have no ordinary user, or an empty text."""
TRIED_ROOTLESS: Final = tuple(name for name in ROOTLESS if name not in ABSENT and not OBSTACLE)
TRIED_DOCKER: Final = () if DOCKER in ABSENT or OBSTACLE else (DOCKER,)


def is_asleep(container: Container) -> bool:
    """Return whether a container's first process sleeps, whenever its state is read from inside."""
    return {container.read("/proc/1/stat").split()[2] for _ in range(20)} == {"S"}


@contextlib.contextmanager
def the_cast(name: str) -> Iterator[Scene]:
    """Start the containers of the cast that the runtime's adapter declares, in a separate world."""
    with World.build() as world:
        adapter = registry.find(name)(world.host)
        adapter.start()
        with Scene(world, adapter, CAST, claimed_only=True) as scene:
            yield scene
        adapter.stop()


def assert_published_port_answers(scene: Scene) -> None:
    """Publish a port, and assert that `inspect` reports it and that a connection gets a reply."""
    port = free_port(scene.netns(HOST), "tcp")
    web = scene.container("web", Bridge(), ports=(Publish(port, 8080),))
    assert {item.host_port for item in web.facts().ports} == {port}
    with Listener(web.net, "tcp", port=8080) as listener:
        address = scene.world.address(HOST, 4)
        assert listener.reached_from(scene.netns("attacker"), at=address, port=port)
    web.remove()
