"""The session of a lab: build the world, run the shell, remove everything."""

from __future__ import annotations

import io
import os
import shlex
import sys
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from harness.adapters import registry
from harness.adapters.docker_cli import adapter
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import (
    AdapterFactory,
    RuntimeBroken,
    RuntimeRefused,
)
from harness.adapters.support import rootless
from harness.lab import shell, terminal, topology_tree
from harness.model.features import Unclaimed, check, of_plan
from harness.model.plan import CAST, DEFAULT_NETWORK, Bridge, Plan
from harness.model.topology import Topology
from harness.sandbox import doctor, sandbox
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.host import HostDied

_WIDTH: Final = 100
_AS_USER: Final = "as-user"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """The options of the lab. Without a `command` the lab runs a shell."""

    runtime: str = "mydocker"
    topology: Topology = Topology()
    plan: Plan | None = None
    """The plan in place of the reference plan."""
    cast: bool = True
    command: tuple[str, ...] = ()


def run(options: LabOptions) -> int:
    """Build the lab, run the shell or the command, and return its exit status.

    If the lab cannot be built, print the reason to standard error and return 1 or 2.
    """
    try:
        factory = registry.find(options.runtime)
        if options.plan:
            check(options.runtime, factory.features, *of_plan(options.plan, factory.features))
    except registry.UnknownRuntime as error:
        return _fail(str(error), code=2)
    except Unclaimed as error:
        return _fail(f"the runtime cannot start the plan: {error}; see `netmodes vendors`", code=2)
    try:
        with terminal.restored():
            code = sandbox.run(lambda: _in_sandbox(options, factory))
    except sandbox.SandboxError as error:
        return _fail(f"cannot make the sandbox: {doctor.refusal(error)}")
    return code if code >= 0 else 128 - code


def _fail(message: str, *, code: int = 1) -> int:
    sys.stderr.write(f"netmodes lab: {message}\n")
    return code


def _in_sandbox(options: LabOptions, factory: AdapterFactory) -> int:
    """Build the lab; if the runtime cannot run in this sandbox, print the reason and return 2."""
    reason = registry.obstacle(factory)
    return _fail(reason, code=2) if reason else _put_up(options, factory)


def _put_up(options: LabOptions, factory: AdapterFactory) -> int:
    """Build the world, start the runtime and its containers, and run the shell."""
    try:
        if missing := doctor.essentials():
            found = "\n  ".join(str(finding) for finding in missing)
            return _fail(f"this machine cannot build a world; run `netmodes doctor`:\n  {found}")
        with World.build(options.topology) as world:
            return _with_runtime(options, world, factory)
    except (RuntimeRefused, RuntimeBroken) as error:
        return _fail(f"{options.runtime} failed: {error}")
    except HostDied as error:
        return _fail(f"the lab ended: {error}")
    except OSError as error:
        return _fail(f"the machine refused an operation: {error}; run `netmodes doctor`")
    except KeyboardInterrupt:
        return 130


def _with_runtime(options: LabOptions, world: World, factory: AdapterFactory) -> int:
    runtime = factory(world.host)
    runtime.start()
    plan = options.plan or (CAST if options.cast else Plan())
    scene = Scene(world, runtime, plan, claimed_only=not options.plan)
    drawn = _draw(scene, user_command(factory))
    interactive = not options.command and terminal.has_job_control()
    outer = shell.outer_environment(runtime)
    if interactive:
        sys.stdout.write(drawn)
        sys.stdout.flush()
    code = terminal.run(
        world.host,
        options.command or shell.shell(os.environ),
        environment=shell.environment(outer),
        prepare=lambda: shell.install(world.namespaces, drawn, outer, scripts_for(factory)),
        interactive=interactive,
    )
    runtime.prune()
    runtime.stop()
    return code


def user_command(factory: AdapterFactory) -> str:
    """Return the command of a Docker-like runtime as users type it; `""` for other runtimes.

    The command of a rootless runtime begins with the script that runs it as its user.
    """
    if isinstance(factory, CliSpec):
        program, *words = factory.command
        if factory.prefix and program.startswith(f"{factory.prefix}/"):  # on the shell's PATH
            program = program.rpartition("/")[2]
        return shlex.join((*((_AS_USER,) if factory.rootless else ()), program, *words))
    name = getattr(factory, "name", "")
    return name if name == registry.DEFAULT else ""


def scripts_for(factory: AdapterFactory) -> dict[str, str]:
    """Return the scripts that run a rootless runtime's commands as its user on the host."""
    if not isinstance(factory, CliSpec) or not factory.rootless:
        return {}
    own = (f"{key}={value}" for key, value in adapter.environment(factory).items())
    words = shlex.join(("env", *own, *rootless.command(())))
    return {_AS_USER: f'#!/bin/sh\ncd {rootless.HOME} && exec {words} "$@"\n'}


def _draw(scene: Scene, command: str) -> str:
    """Return a text with the topology and some commands to try, in colours if possible."""
    containers = [
        topology_tree.ContainerView(
            container.name,
            container.mode,
            tuple(
                interface
                for interface in scene[container.name].net.interfaces()
                if not interface.ip.is_loopback
            ),
        )
        for container in scene.plan.containers
    ]
    bridged = any(isinstance(item.mode, Bridge) for item in containers)
    bridge = scene.runtime.network_facts(DEFAULT_NETWORK) if bridged else None
    outer = Console()
    console = Console(
        file=io.StringIO(),
        width=min(outer.width, _WIDTH),
        color_system="standard" if outer.color_system and not outer.no_color else None,
        force_terminal=outer.is_terminal,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(topology_tree.draw(scene.world.topology, bridge, containers))
        console.print("\nTo try:")
        console.print(_hints(scene, command))
    return captured.get()


def _hints(scene: Scene, command: str) -> Table:
    names = " ".join(scene.world.namespaces)
    container = next((item.name for item in scene.plan.containers), None)
    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(no_wrap=True)
    table.add_column()
    if command:
        table.add_row(f"{command} ps", "list the containers")
    if command and container:
        table.add_row(f"{command} exec -it {container} sh", "open a shell in a container")
    table.add_row("ip -br addr", "show the interfaces of the host")
    table.add_row("inside ns1 netmodes ping 203.0.113.10", "ping from ns1, and show the TTL")
    table.add_row("inside internet", f"open a shell in one of: {names}")
    table.add_row(f"cat {shell.PICTURE}", "show this page again")
    table.add_row("exit", "leave and remove the lab")
    return table
