"""A world that is held after a failure: how to enter it, or a shell in it right away."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from harness.lab import shell, terminal
from harness.sandbox import sandbox
from harness.testbench.scene import Scene
from harness.world.build import World
from linux.netns import NetNS


def instructions(world: World | None, scene: Scene | None) -> str:
    """What to type, in another terminal, to look around; the run goes on at Ctrl-C."""
    lines = ["The run waits here: press Ctrl-C to take everything down and end it."]
    waiter, _, users = os.environ.get(sandbox.OUTSIDE, "").partition(" ")
    if not waiter or world is None:
        return "\n".join([*lines, ""])
    own = os.stat("/proc/self/ns/user").st_ino
    into = "nsenter" if str(own) == users else "nsenter -U --preserve-credentials"
    enter = f"{into} -t $(pgrep -P {waiter}) -m -p -n"
    lines += ["From another terminal of this machine, as the same user:", f"  {enter}"]
    lines += ["", "and in there:"]
    lines.append(f"  {'host':24}nsenter -t {world.host.pid} -m -n -u -i -p")
    for name, path in _paths(world, scene):
        lines.append(f"  {name:24}nsenter --net={path}")
    return "\n".join([*lines, ""])


def _paths(world: World, scene: Scene | None) -> Iterator[tuple[str, str]]:
    own = f"/proc/{os.getpid()}/fd"
    for name, space in world.namespaces.items():
        if name != "host":
            yield name, f"{own}/{space.fd}"
    for item in scene.plan.containers if scene else ():
        facts = scene.runtime.inspect(item.name) if scene else None
        if facts is not None and facts.running:
            yield item.name, f"/proc/{world.host.pid}/root/proc/{facts.pid}/ns/net"


def open_shell(world: World, scene: Scene | None) -> int:
    """The lab's shell, in the world as it is; the shell's exit status."""
    spaces: dict[str, NetNS] = dict(world.namespaces)
    opened = []
    for item in scene.plan.containers if scene else ():
        try:
            opened.append(scene.place(item.name).open())  # type: ignore[union-attr] # there is one
        except (OSError, ProcessLookupError):
            continue
        spaces[item.name] = opened[-1]
    names = " ".join(spaces)
    told = (
        "A shell on the host of the failed test; `exit` goes on with the run.\n"
        f"inside NAME [COMMAND…] enters one of: {names}\n"
    )
    sys.stdout.write(told)
    sys.stdout.flush()

    outer = shell.given(scene.runtime if scene else None)

    try:
        with terminal.restored():
            code = terminal.run(
                world.host,
                shell.shell(os.environ),
                environment=shell.environment(outer),
                prepare=lambda: shell.furnish(spaces, told, outer),
                interactive=True,
            )
        world.host.call(shell.clear, tuple(spaces))
        return code
    finally:
        for space in opened:
            space.close()
