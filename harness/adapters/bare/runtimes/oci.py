"""Bare OCI runtimes, such as crun and runc, in network namespaces of CNI or `VethBridge`.

https://github.com/opencontainers/runtime-spec/blob/v1.0.2/runtime.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.adapters.bare import bundle
from harness.adapters.bare.adapter import BareFactory
from harness.adapters.bare.linux_bridge import BRIDGE, DEFAULT, VethBridge
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.support.program import Program, read_pid
from harness.model.features import Feature


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """Driver of OCI runtimes that have the command line of runc."""

    program: Program

    def start(self, request: StartRequest) -> int:
        """Write config.json and call `run --detach`."""
        bundle.write_config(request)
        return self._run(request)

    def _run(self, request: StartRequest, *options: str) -> int:
        pid_file = request.home / "pid"
        words = ("--pid-file", str(pid_file), "--bundle", str(request.home), request.name)
        self.program.run_checked(*options, "run", "--detach", *words, log=request.log)
        return read_pid(pid_file)

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it keeps its own records
        """Call `delete --force`, even if the runtime does not know the container."""
        self.program.run("delete", "--force", name)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # by name
        """Return the `exec` command prefix that runs a command in a container."""
        return (*self.program.command, "exec", name)


CRUN: Final = BareFactory(
    name="crun",
    command=("crun", "--cgroup-manager", "cgroupfs"),
    make=OciRuntime,
    packages=("crun",),
    cgroups=True,
)
RUNC: Final = BareFactory(
    name="runc", command=("runc",), make=OciRuntime, packages=("runc",), cgroups=True
)

# --- on bridges made by hand, which have neither further networks nor published ports ------------

_BY_HAND: Final = VethBridge(BRIDGE, DEFAULT)
_HAS: Final = frozenset(
    {
        *(Feature.BRIDGE, Feature.HOST, Feature.NONE, Feature.CONTAINER),
        *(Feature.IPV6, Feature.SYSCTL),
    }
)
CRUN_BY_HAND: Final = replace(
    CRUN,
    name="crun-by-hand",
    features=_HAS,
    wiring=_BY_HAND,
    dialect_entries=("by-hand", "veth", "crun"),
)
RUNC_BY_HAND: Final = replace(
    RUNC,
    name="runc-by-hand",
    features=_HAS,
    wiring=_BY_HAND,
    dialect_entries=("by-hand", "veth", "runc"),
)
