"""bubblewrap, which only starts a process in new namespaces: https://github.com/containers/bubblewrap.

With `--unshare-net` bubblewrap creates a netns and sets `lo` up. To start in an existing netns,
nsenter joins the netns and then executes bubblewrap. Commands run in a container through nsenter,
because bubblewrap has no `exec`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.adapters.bare.adapter import FEATURES, BareFactory
from harness.adapters.bare.bundle import CAPABILITIES, FILES, PATH
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.bare.runtimes import foreground
from harness.adapters.support.program import Program, ProgramRefused
from harness.model.features import Feature


@dataclass(frozen=True, slots=True)
class Bwrap:
    """Driver of bubblewrap, whose only command starts a container."""

    program: Program

    def start(self, request: StartRequest) -> int:
        """Start bubblewrap in the netns to join."""
        if request.spec.sysctls:
            raise ProgramRefused("sysctl: bwrap does not support it")
        joining = ("nsenter", f"--net={request.netns}", "--") if request.netns else ()
        argv = (*joining, *self.program.command, *_options(request), "--", *request.args)
        return foreground.start(argv, request, self.program.environment())

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it knows no names
        """Wait for the end of the bwrap process."""
        foreground.forget(home)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # no names
        """Return the nsenter(1) command prefix that runs a command in a container."""
        return foreground.nsenter_command(pid)


def _options(request: StartRequest) -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--new-session")
    if request.netns == "":
        yield "--unshare-net"
    yield from ("--hostname", request.hostname, "--clearenv")
    name, _, value = PATH.partition("=")
    yield from ("--setenv", name, value, "--setenv", "HOSTNAME", request.hostname)
    yield from ("--bind", str(request.root), "/", "--proc", "/proc", "--dev", "/dev")
    yield from ("--ro-bind", "/sys", "/sys")
    for file in FILES:
        yield from ("--bind", str(request.home / file), f"/etc/{file}")
    yield from (word for name in CAPABILITIES for word in ("--cap-add", name))


FACTORY: Final = BareFactory(
    name="bwrap",
    command=("bwrap",),
    make=Bwrap,
    packages=("bubblewrap",),
    programs=("nsenter",),
    features=FEATURES - {Feature.SYSCTL},
)
