"""gVisor's runsc, whose containers have a network stack in user space.

A sandbox is a process of the host. When it starts, it takes over the addresses and routes of its
network namespace and removes them from the interfaces. Packets then pass through AF_PACKET
sockets (https://gvisor.dev/docs/user_guide/networking/). Any network backend therefore works, but
only commands in the container see the addresses.

Two sandboxes cannot share a stack. A joining container therefore becomes another container of the
joined sandbox, as in a pod. It has its own files and processes, and ends with the first container.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, replace
from typing import Final

from harness.adapters.bare import bundle, store
from harness.adapters.bare.adapter import CNI, FEATURES, FOR_EVER, BareFactory
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.bare.runtimes.oci import OciRuntime
from harness.adapters.support.program import Program
from harness.model.features import Feature
from harness.model.plan import Host, Joined, Nothing

_ROOT: Final = "/run/netmodes/runsc"
_HIDE: Final = 'mount -t tmpfs none /proc/sys/net && exec "$@"'
"""Hides /proc/sys/net in a separate mount namespace: runsc refuses a netns in which it sees
net.core.rmem_default, which Linux 6.18 shows in every one."""
HIDDEN: Final = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")
"""Wrapper before the runtime's command line."""
OPTIONS: Final = ("--net-raw", "--ignore-cgroups")
"""Options of every command."""
IDLE: Final = ("sh", "-c", 'trap "exit 0" TERM INT; sleep 2147483647 & wait $!')
"""Idle command: under gVisor a shell spins at a fifo of the host or at an unused terminal."""
_KIND, _POD = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
"""https://github.com/google/gvisor/blob/release-20240729.0/runsc/specutils/cri.go."""


@dataclass(frozen=True, slots=True)
class Runsc(OciRuntime):
    """Driver of runsc, which has the command line of runc with further options."""

    def start(self, request: StartRequest) -> int:
        """Write config.json and call `run --detach`."""
        pod = _pod(request.name)
        config = bundle.config_of(request)
        del config["linux"]["cgroupsPath"]  # this cgroup controller is not available here
        if tuple(request.args) == FOR_EVER:
            config["process"]["args"] = list(IDLE)
        if pod != request.name:
            config["annotations"] = {_KIND: "container", _POD: pod}
        bundle.write_config(request, config)
        network = {Host: "host", Nothing: "none"}.get(type(store.load(pod).spec.mode), "sandbox")
        return self._run(request, f"--network={network}")

    def end(self, name: str, pid: int, grace: float) -> None:
        """Call `kill`; the first container of a sandbox ends together with the sandbox."""
        if _pod(name) == name:
            store.end_process(pid, grace)
            return
        if grace:
            self.program.run("kill", name, "TERM")
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    (*self.program.command, "wait", name),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    env=self.program.environment(),
                    timeout=grace,
                    check=False,
                )


def _pod(name: str) -> str:
    """Return the container whose sandbox the container shares: the end of a chain of joins."""
    while isinstance(mode := store.load(name).spec.mode, Joined):
        name = mode.container
    return name


def _driver(program: Program) -> Runsc:
    """Return the driver with the wrapper and the options that every command needs."""
    command = (*HIDDEN, *program.command, "--root", _ROOT, *OPTIONS)
    return Runsc(replace(program, command=command))


RUNSC: Final = BareFactory(
    name="runsc",
    command=("runsc",),
    programs=("unshare",),
    make=_driver,
    packages=("runsc",),
    version_pattern=r"\d{8}\.\d+",
    features=FEATURES - {Feature.SYSCTL},
    dialect_entries=(CNI, "gvisor"),
)
