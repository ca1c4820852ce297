"""Checks whether this machine can run live tests, each with a remedy for its failure.

A sysctl shows the configuration, not the capability. AppArmor permits a new user namespace and then
denies every operation in it. A container runtime filters system calls. Every check therefore tries
the operation itself, in a network namespace that exists only during the check.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from fcntl import ioctl
from functools import partial
from ipaddress import IPv4Address, IPv6Interface
from pathlib import Path
from typing import Final, NamedTuple

from harness.sandbox import sandbox
from linux import netlink, nftables, rtnetlink
from linux import syscalls as sys_
from linux.netlink import Netlink
from linux.netns import NetNS


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check. `remedy` is empty if the check succeeded."""

    name: str
    required: bool
    ok: bool
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return self.name if self.ok else f"{self.name}: {self.why}. {self.remedy}"


class Check(NamedTuple):
    """A check that tries one operation. `attempt` raises `OSError` if the machine refuses it."""

    name: str
    attempt: Callable[[], None]
    remedy: str
    required: bool = True
    slow: bool = False


# --- the attempts ----------------------------------------------------------


def _link(*requests: netlink.Request) -> None:
    with Netlink() as kernel:
        kernel.send(requests)


def _rule(name: str, hook: nftables.Hook, *parts: list[nftables.Expression]) -> None:
    table = nftables.Table("inet", name)
    chain = nftables.add_chain(
        table, name, hook=hook, kind="filter" if hook == "forward" else "nat"
    )
    with nftables.Nft() as rules:
        rules.apply([nftables.add_table(table), chain, nftables.add_rule(table, name, *parts)])


def _publish() -> None:
    tcp = (nftables.family(4), nftables.l4proto("tcp"), nftables.dport(80))
    to = nftables.dnat(IPv4Address("192.0.2.1"), 80)
    _rule("publish", "prerouting", nftables.to_local(), *tcp, to)


def _overlay() -> None:
    base = Path("/run/netmodes/overlay")
    base.mkdir()
    sys_.mount("tmpfs", str(base), "tmpfs")
    try:
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        sys_.mount("overlay", str(base / "merged"), "overlay", data=layers)
        (base / "merged" / "written").touch()
    finally:
        sys_.umount(str(base))
        base.rmdir()


def _packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def _raw_socket(*kinds: tuple[int, int]) -> None:
    for family, protocol in kinds:
        socket.socket(family, socket.SOCK_RAW, protocol).close()


def _pidfd() -> None:
    fd = os.pidfd_open(os.getpid())
    try:
        sys_.setns(fd, sys_.CLONE_NEWNET | sys_.CLONE_NEWUTS)
    finally:
        os.close(fd)


def _cgroup() -> None:
    made = Path("/sys/fs/cgroup/doctor")
    made.mkdir()
    made.rmdir()


def _subordinate_ids() -> None:
    spans = [int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if sum(spans) < 1 << 16:
        raise OSError(errno.EPERM, f"the user namespace maps {sum(spans)} user id, not 65536")


def _tun() -> None:
    with open("/dev/net/tun", "r+b", buffering=0) as device:
        ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun", 0x0001))  # TUNSETIFF, IFF_TUN


def _kind(kind: str, data: bytes = b"", *, below: bool = False) -> None:
    """Make a link of type `kind`, on top of another link if the type needs one."""
    parent = socket.if_nametoindex("bridge") if below else None
    _link(rtnetlink.add_link(kind, kind, parent=parent, data=data))


# --- the list --------------------------------------------------------------


def _module(*names: str) -> str:
    return f"Run as root: modprobe {' '.join(names)}; or boot a kernel with {', '.join(names)}"


_IN_CONTAINER = (
    "In a container, give it more privileges (docker run --privileged), or use a virtual machine"
)

CHECKS = (
    Check("bridge", partial(_link, rtnetlink.add_bridge("bridge")), _module("bridge")),
    Check("veth", partial(_link, rtnetlink.add_veth("veth", "peer")), _module("veth")),
    Check(
        "IPv6",
        partial(_link, rtnetlink.add_address(1, IPv6Interface("2001:db8::1/64"))),
        "Boot without ipv6.disable=1, or run as root: modprobe ipv6",
    ),
    Check(
        "nft masquerade",
        partial(_rule, "masquerade", "postrouting", nftables.oifname("lo"), nftables.masquerade()),
        _module("nf_tables", "nft_masq", "nft_chain_nat"),
    ),
    Check("nft port publishing", _publish, _module("nft_nat", "nft_fib_inet")),
    Check(
        "nft filter",
        partial(_rule, "filter", "forward", nftables.ct_state("established"), nftables.reject()),
        _module("nft_ct", "nft_reject_inet"),
    ),
    Check("overlay mount", _overlay, f"{_module('overlay')}; without root, Linux 5.11 or newer"),
    # Closing it waits for an RCU grace period: 10 ms.
    Check("packet socket", _packet_socket, _module("af_packet"), slow=True),
    Check(
        "raw ICMP socket",
        partial(_raw_socket, (socket.AF_INET, 1), (socket.AF_INET6, 58)),
        _IN_CONTAINER,
    ),
    Check("setns by pidfd", _pidfd, "Boot Linux 5.8 or newer"),
    Check(
        "own cgroup",
        _cgroup,
        "Run as root, or in a delegated scope: systemd-run --user --scope -p Delegate=yes COMMAND",
        required=False,
    ),
    Check(
        "subordinate ids",
        _subordinate_ids,
        "Install newuidmap (Debian: uidmap), and add a range to /etc/subuid and /etc/subgid",
        required=False,
    ),
    Check("dummy", partial(_kind, "dummy"), _module("dummy"), required=False),
    Check("macvlan", partial(_kind, "macvlan", below=True), _module("macvlan"), required=False),
    Check("ipvlan", partial(_kind, "ipvlan", below=True), _module("ipvlan"), required=False),
    Check(
        "vlan",
        partial(_kind, "vlan", netlink.attr(1, struct.pack("=H", 7)), below=True),
        _module("8021q"),
        required=False,
    ),
    Check("vxlan", partial(_kind, "vxlan", netlink.u32(1, 7)), _module("vxlan"), required=False),
    Check("ifb", partial(_kind, "ifb"), _module("ifb"), required=False),
    Check(
        "tun",
        _tun,
        "Run as root: modprobe tun; chmod 666 /dev/net/tun. In a container: --device /dev/net/tun",
        required=False,
    ),
)


def examine(checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Run each of `checks` and return the results; the sandbox stays unchanged.

    The caller must be in a sandbox. Raises `SandboxError` outside a sandbox.
    """
    sandbox.require()
    with NetNS.new() as bench, bench.entered():
        return [_try(check) for check in checks]


def essentials() -> list[Finding]:
    """Return the results of failed required checks.

    Slow checks are left out: the others take a few milliseconds.
    """
    found = examine(tuple(check for check in CHECKS if check.required and not check.slow))
    return [finding for finding in found if not finding.ok]


def _try(check: Check) -> Finding:
    try:
        check.attempt()
    except OSError as error:
        why = error.strerror or str(error)
        denied = error.errno in (errno.EPERM, errno.EACCES) and check.required
        remedy = access_remedy() if denied else check.remedy
        return Finding(check.name, check.required, ok=False, why=why, remedy=remedy)
    return Finding(check.name, check.required, ok=True)


# --- steps into the sandbox ------------------------------------------------------------


_KINDS: Final = {"mount namespace": "mnt", "network namespace": "net"}
"""The kernel's names of namespaces that the steps into the sandbox name differently."""


def refusal(error: sandbox.SandboxError) -> Finding:
    """Return the finding, with a remedy, for a step into the sandbox that the machine refused."""
    if error.errno == errno.ENOSPC:
        kind = _KINDS.get(error.step, error.step.partition(" ")[0].lower())
        limit = f"user.max_{kind}_namespaces"
        remedy = f"Raise the limit {limit} (sysctl, as root), or end processes that use namespaces"
    elif error.errno == errno.EINVAL:
        remedy = "Boot a kernel with CONFIG_USER_NS, CONFIG_PID_NS and CONFIG_NET_NS"
    else:
        remedy = access_remedy()
    return Finding(error.step, required=True, ok=False, why=error.reason, remedy=remedy)


def access_remedy() -> str:
    """Return the likely reason why permission was denied, and the remedy."""
    switches = {
        "kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "AppArmor restricts user namespaces (Ubuntu 23.10 and newer): run as root, or: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        "kernel/unprivileged_userns_clone": (
            "0",
            "Users cannot make user namespaces: run as root, or: "
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
    }
    for name, (bad, remedy) in switches.items():
        with suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == bad and os.geteuid():
                return remedy
    return f"Run as root, or as a user that can make user namespaces. {_IN_CONTAINER}"


def diagnose() -> list[Finding]:
    """Return the findings for each step into a sandbox, then for each check inside it.

    The list ends at a refused step, because later steps and checks are then impossible.
    """
    reader, writer = os.pipe()

    def report() -> int:
        os.write(writer, json.dumps([asdict(finding) for finding in examine()]).encode())
        return 0

    with open(reader, "rb") as answers, open(writer, "wb") as mine:
        try:
            code = sandbox.run(report)
        except sandbox.SandboxError as error:
            steps = sandbox.STEPS
            reached = steps[: steps.index(error.step)] if error.step in steps else ()
            return [*_passed(reached), refusal(error)]
        if code != 0:
            raise RuntimeError(f"the checks ended with exit code {code}; their output is above")
        mine.close()
        return [*_passed(sandbox.STEPS), *(Finding(**fields) for fields in json.load(answers))]


def _passed(steps: Iterable[str]) -> list[Finding]:
    return [Finding(step, required=True, ok=True) for step in steps]
