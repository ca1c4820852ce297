"""lxc, driven by its command line, on the bridge that `lxc-net` creates.

https://linuxcontainers.org/lxc/manpages/man5/lxc.container.conf.5.html. lxc itself creates the veth
pairs and sets the addresses in a container's configuration; `linux_bridge` chooses the addresses.
lxc has one bridge, lxcbr0. An operator may create further bridges, and they work, but the adapter
does not declare the feature networks. IPv6 is off on lxcbr0. Otherwise lxc-net would send router
advertisements, and containers would get other addresses besides the requested one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from harness.adapters.bare.adapter import BareFactory
from harness.adapters.bare.bundle import FILES
from harness.adapters.bare.linux_bridge import LinuxBridge
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.protocol import Endpoint
from harness.adapters.support import programs
from harness.adapters.support.program import (
    Program,
    ProgramBroken,
    ProgramRefused,
    ProgramSilent,
    parse_pid,
)
from harness.model.features import Feature
from harness.model.plan import DEFAULT_NETWORK, Joined, NetworkSpec
from linux.syscalls import mount

_HOME: Final = "/run/netmodes/lxc"
_DEFAULT: Final = NetworkSpec(
    DEFAULT_NETWORK, subnet=IPv4Network("10.0.3.0/24"), gateway=IPv4Address("10.0.3.1")
)
"""lxc-net's default network."""
_NET: Final = next(
    (path for path in ("/usr/libexec/lxc/lxc-net", "/usr/lib/lxc/lxc-net") if os.path.exists(path)),
    "lxc-net",
)
_OURS: Final = "/etc/default/ours"
_SETTINGS: Final = 'LXC_IPV6_ENABLE="false"\n'
_LEASES: Final = "/var/lib/misc"
_ENDED: Final = "10"
"""Time limit for lxc's cleanup of a container, in seconds."""
_DROPPED: Final = "mac_admin mac_override sys_time sys_module sys_rawio"
"""The capabilities that lxc's common.conf drops."""


@dataclass(frozen=True, slots=True)
class Lxc:
    """Driver of the lxc-* programs, which know containers by name."""

    program: Program

    def start(self, request: StartRequest) -> int:
        """Write the configuration and call `lxc-start`, which returns once the container runs."""
        conf = Path(_HOME, request.name, "config")
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text("".join(f"{line}\n" for line in _configuration(request)), encoding="utf-8")
        words = ("-P", _HOME, "-n", request.name)
        log = ("-o", str(request.home / "lxc.log"), "-l", "ERROR")
        try:
            self.program.run_checked(*words, *log, "--", *request.args, log=request.log)
        except (ProgramRefused, ProgramSilent):
            reason = (
                (request.home / "lxc.log").read_text(encoding="utf-8", errors="replace").strip()
            )
            raise ProgramRefused(
                reason or request.log.read_text(encoding="utf-8", errors="replace")
            ) from None
        return parse_pid(self._other("lxc-info").run(*words, "-p", "-H").stdout, "lxc-info")

    def forget(self, name: str, home: Path) -> None:  # noqa: ARG002 # it keeps its own records
        """Call `lxc-stop --kill`, wait until lxc has cleaned up, and remove the configuration."""
        self._other("lxc-stop").run("-P", _HOME, "-n", name, "-k")
        self._other("lxc-wait").run("-P", _HOME, "-n", name, "-s", "STOPPED", "-t", _ENDED)
        shutil.rmtree(f"{_HOME}/{name}", ignore_errors=True)

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:  # noqa: ARG002 # by name
        """Return the `lxc-attach` command prefix that runs a command in a container."""
        return ("lxc-attach", "-P", _HOME, "-n", name, "--")

    def _other(self, name: str) -> Program:
        return Program((name,), self.program.path)


def _configuration(request: StartRequest) -> Iterator[str]:
    yield f"lxc.uts.name = {request.hostname}"
    yield f"lxc.rootfs.path = dir:{request.root}"
    yield "lxc.mount.auto = proc:mixed sys:mixed"
    for name in FILES:
        yield f"lxc.mount.entry = {request.home / name} etc/{name} none bind,create=file 0 0"
    yield "lxc.tty.max = 0"
    yield f"lxc.cap.drop = {_DROPPED}"
    yield "lxc.apparmor.profile = unchanged"
    for key, value in request.spec.sysctls:
        yield f"lxc.sysctl.{key} = {value}"
    yield from _network(request)


def _network(request: StartRequest) -> Iterator[str]:
    mode = request.spec.mode
    if request.netns is None:
        yield "lxc.net.0.type = none"
    elif isinstance(mode, Joined):
        yield f"lxc.namespace.share.net = {mode.container}"
    elif not request.endpoints:
        yield "lxc.net.0.type = empty"
    for number, endpoint in enumerate(request.endpoints):
        for key, value in _link(request, number, endpoint).items():
            if value:
                yield f"lxc.net.{number}.{key} = {value}"


def _link(request: StartRequest, number: int, endpoint: Endpoint) -> dict[str, object]:
    return {
        "type": "veth",  # the first, says the manual
        "link": request.links[number],
        "flags": "up",
        "name": f"eth{number}",
        "hwaddr": endpoint.mac,
        "ipv4.address": endpoint.address,
        "ipv4.gateway": endpoint.gateway,
        "ipv6.address": endpoint.address6,
        "ipv6.gateway": endpoint.gateway6,
    }


def start_net() -> None:
    """Call `lxc-net restart`, which creates the bridge and its rules and starts dnsmasq."""
    if not os.path.exists(_OURS):
        _prepare()
    program = Program((_NET,), programs.search_path())
    try:
        program.run_checked("restart", log=Path("/run/netmodes/lxc-net.log"))
    except ProgramRefused as error:
        raise ProgramBroken(f"{_NET} restart: {error}") from error


def _prepare() -> None:
    """Write the settings of lxc-net, and make the directory of dnsmasq's leases writable."""
    mount("tmpfs", _LEASES, "tmpfs", 0, "mode=755")
    with contextlib.suppress(FileNotFoundError):
        os.unlink("/etc/default")  # a link to the machine's own
    Path("/etc/default").mkdir()
    Path("/etc/default/lxc").write_text(_SETTINGS, encoding="ascii")
    Path(_OURS).touch()


FACTORY: Final = BareFactory(
    name="lxc",
    command=("lxc-start",),
    make=Lxc,
    packages=("lxc", "dnsmasq-base", "nftables"),
    programs=("lxc-attach", "lxc-info", "lxc-stop", "lxc-wait", _NET, "dnsmasq", "nft"),
    features=frozenset(
        {
            *(Feature.BRIDGE, Feature.HOST, Feature.NONE, Feature.CONTAINER),
            *(Feature.IPV6, Feature.RESTART, Feature.SYSCTL),
        }
    ),
    relocatable=False,
    wiring=LinuxBridge("lxcbr0", _DEFAULT, made_by=start_net),
    dialect_entries=("lxc-net",),
)
