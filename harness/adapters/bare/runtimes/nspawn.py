"""systemd-nspawn on a host without systemd.

https://www.freedesktop.org/software/systemd/man/257/systemd-nspawn.html. systemd-nspawn creates a
veth pair whose one end is a bridge port. The other end, host0, is down and has no address, because
systemd-networkd in the container would configure it. No networkd runs in the test containers, so
this driver configures host0. Duplicate address detection is off, because each address is assigned
once. systemd-nspawn needs root: it takes a user namespace from systemd-nsresourced, or uses none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.adapters.bare.adapter import BareFactory
from harness.adapters.bare.bundle import FILES, PATH
from harness.adapters.bare.linux_bridge import BRIDGE, DEFAULT, LinuxBridge, configuration
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.bare.runtimes import foreground
from harness.adapters.support.program import Program, ProgramRefused
from harness.model.features import Feature
from harness.model.plan import Joined
from linux import netns, rtnetlink, rtnetlink_dump
from linux.netlink import Netlink
from linux.netns import NetNS

_INSIDE: Final = "host0"


@dataclass(frozen=True, slots=True)
class Nspawn:
    """Driver of systemd-nspawn, whose only command starts a container."""

    program: Program

    def start(self, request: StartRequest) -> int:
        """Start the container, and configure the name and the addresses of its interface."""
        if request.spec.sysctls or request.spec.mac:
            raise ProgramRefused("systemd-nspawn has no option for sysctls or a MAC")
        if len(request.endpoints) > 1:
            raise ProgramRefused("systemd-nspawn accepts --network-bridge only once")
        (request.root / "etc" / "os-release").touch()  # "doesn't look like an OS tree" without
        argv = (*self.program.command, *_options(request), "--", *request.args)
        pid = foreground.start(argv, request, self.program.environment())
        for endpoint in request.endpoints:
            with NetNS.at(f"/proc/{pid}/ns/net") as space, Netlink(space) as netlink:
                index = rtnetlink_dump.link(netlink, _INSIDE).ifindex
                netns.write_sysctls(space, {f"net.ipv6.conf.{_INSIDE}.accept_dad": 0})
                netlink.send([rtnetlink.set_link(index, name="eth0")])
                netlink.send(configuration(index, endpoint))
        return pid

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it is not registered
        """Wait for the end of systemd-nspawn."""
        foreground.forget(home)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # no names
        """Return an nsenter(1) command prefix: machinectl needs machined, which does not run."""
        return foreground.nsenter_command(pid)


def _options(request: StartRequest) -> Iterator[str]:
    yield from (f"--directory={request.root}", f"--machine={request.name}", "--quiet")
    yield from ("--register=no", "--keep-unit", "--console=pipe", "--settings=no")
    yield from (f"--hostname={request.hostname}", "--resolv-conf=off", "--timezone=off")
    yield from ("--link-journal=no", f"--setenv={PATH}")
    yield from (f"--bind={request.home / name}:/etc/{name}" for name in FILES)
    if isinstance(request.spec.mode, Joined) and request.netns:
        yield f"--network-namespace-path={request.netns}"
    elif request.netns is not None:
        yield "--private-network"
    yield from (f"--network-bridge={link}" for link in request.links if link)


FACTORY: Final = BareFactory(
    name="nspawn",
    command=("systemd-nspawn",),
    make=Nspawn,
    packages=("systemd-container",),
    programs=("nsenter",),
    features=frozenset(
        {
            *(Feature.BRIDGE, Feature.HOST, Feature.NONE, Feature.CONTAINER),
            *(Feature.IPV6, Feature.RESTART),
        }
    ),
    relocatable=False,
    wiring=LinuxBridge(BRIDGE, DEFAULT),
    dialect_entries=("by-hand",),
    for_root=True,
)
