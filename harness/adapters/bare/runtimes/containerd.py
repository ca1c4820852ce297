"""containerd, driven by its command-line client `ctr`: https://github.com/containerd/containerd.

containerd creates no networks; its clients do. A netns is therefore connected first, as CRI does,
and passed to `ctr run --with-ns`. `ctr run --cni` is not used because it never undoes its work: see
docs/findings.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.adapters.bare.adapter import FEATURES, BareFactory
from harness.adapters.bare.bundle import FILES, PATH
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.support.daemon import DaemonSpec
from harness.adapters.support.program import Program, ProgramRefused, read_pid
from harness.model.features import Feature

_HOME: Final = "/run/netmodes/containerd"
_SOCKET: Final = f"{_HOME}/containerd.sock"
_CONF: Final = f"{_HOME}/containerd.toml"
_RUNC: Final = "/run/containerd/runc/default"
"""The directory of the shims' container state, in containerd's namespace `default`."""
_CONTENT: Final = f"""version = 2
root = "{_HOME}/root"
state = "{_HOME}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{_SOCKET}"
"""


@dataclass(frozen=True, slots=True)
class Ctr:
    """Driver of containerd by ctr's command line."""

    program: Program

    def start(self, request: StartRequest) -> int:
        """Call `ctr run --detach` on a prepared root, so that no snapshotter is needed."""
        if request.spec.sysctls:
            raise ProgramRefused("sysctl: `ctr run` does not support it")
        pid_file = request.home / "pid"
        words = (
            "--detach",
            "--null-io",
            "--pid-file",
            str(pid_file),
            *_options(request),
            "--rootfs",
        )
        self.program.run_checked(
            "run", *words, str(request.root), request.name, *request.args, log=request.log
        )
        return read_pid(pid_file)

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it keeps its own records
        """Remove the task and the container, if they exist."""
        self.program.run("task", "rm", "--force", name)
        self.program.run("container", "rm", name)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # by name
        """Return `runc exec` with the shim's state directory: `ctr exec` may lose output.

        https://github.com/containerd/containerd/pull/13931.
        """
        return ("runc", "--root", _RUNC, "exec", name)


def _options(request: StartRequest) -> Iterator[str]:
    yield from ("--hostname", request.hostname)
    yield from ("--env", PATH, "--env", f"HOSTNAME={request.hostname}")
    yield from ("--cpu-shares", "0")  # a private cgroup2 need not have that controller
    if not os.access("/sys/fs/cgroup", os.W_OK):
        yield from ("--cgroup", "")  # an ordinary user's cgroup, which is not delegated
    for name in FILES:
        yield from ("--mount", f"type=bind,src={request.home / name},dst=/etc/{name},options=rbind")
    if request.netns is None:
        yield "--net-host"
    elif request.netns:
        yield from ("--with-ns", f"network:{request.netns}")


FACTORY: Final = BareFactory(
    name="containerd",
    command=("ctr", "--address", _SOCKET),
    make=Ctr,
    packages=("containerd", "runc"),
    programs=("containerd-shim-runc-v2", "runc"),
    features=FEATURES - {Feature.SYSCTL},
    daemons=(DaemonSpec(command=("containerd", "--config", _CONF), socket=_SOCKET),),
    files=((_CONF, _CONTENT),),
)
