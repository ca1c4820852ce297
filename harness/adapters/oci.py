"""Bare OCI runtimes, crun and runc: bundles started in namespaces.

https://github.com/opencontainers/runtime-spec/blob/v1.0.2/runtime.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.adapters import bundle
from harness.adapters.bare import Order
from harness.adapters.bare_adapter import BareFactory
from harness.adapters.program import Program


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """Drives one by the command line that runc has, and others after it."""

    program: Program

    def start(self, order: Order) -> int:
        """A config.json, and `run --detach`."""
        bundle.write(order)
        told = order.home / "pid"
        words = ("--detach", "--pid-file", str(told), "--bundle", str(order.home), order.name)
        self.program.ask("run", *words, log=order.log)
        return int(told.read_text(encoding="ascii"))

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it keeps its own records
        """`delete --force`, whether it knows the container or not."""
        self.program.run("delete", "--force", name)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # by name
        """`exec`."""
        return (*self.program.command, "exec", name)


CRUN: Final = BareFactory(
    name="crun",
    command=("crun", "--cgroup-manager", "cgroupfs"),
    make=OciRuntime,
    packages=("crun",),
)
RUNC: Final = BareFactory(name="runc", command=("runc",), make=OciRuntime, packages=("runc",))
