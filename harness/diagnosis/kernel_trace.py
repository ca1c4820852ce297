"""The kernel's records about the probe's packets: nft traces, and drop reasons from tracefs."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from harness.diagnosis.packet_path import NftVerdict, PacketHeader
from harness.diagnosis.probe_frames import PORTS, of_packet
from harness.probe.reception import MAGIC
from harness.sandbox import sandbox
from linux import nftables, syscalls
from linux.netns import NetNS
from linux.nft_trace import Tracer, TraceStep, port_from
from linux.nftables import Expression, Nft, Table, transport

TABLE: Final = "netmodes-autopsy"
"""The nft table of the tracers, present only during a replay, and the tracefs marker."""
_ICMP_HEADER: Final = 8
_FINAL: Final = frozenset({"drop", "stolen", "queue"})
_ICMP_ERRORS: Final = {"icmp": (3, 11, 12), "icmpv6": (1, 2, 3, 4, 135, 136)}
"""ICMP types of errors; for ICMPv6 also those of neighbour discovery."""


def _flows() -> Iterator[list[Expression]]:
    for protocol in ("udp", "icmp", "icmpv6"):
        yield [*nftables.l4proto(protocol), *transport(_ICMP_HEADER, MAGIC)]
    for which in (0, 2):
        yield [*nftables.l4proto("tcp"), *port_from(PORTS, which)]
        yield [*nftables.l4proto("udp"), *transport(which, (53).to_bytes(2, "big"))]
    for protocol, kinds in _ICMP_ERRORS.items():
        for kind in kinds:
            yield [*nftables.l4proto(protocol), *nftables.icmp_type(kind)]


class Tracing:
    """Context manager that runs an nft tracer in each of several distinct network namespaces."""

    def __init__(self, spaces: Mapping[str, NetNS]) -> None:
        self._spaces = spaces
        flows: Sequence[list[Expression]] = list(_flows())
        with contextlib.ExitStack() as stack:
            self._tracers = {
                name: stack.enter_context(Tracer(space, flows, name=TABLE))
                for name, space in spaces.items()
            }
            self._resources = stack.pop_all()

    def verdicts(self, *, names: bool = False) -> list[NftVerdict]:
        """Return the nft verdicts that ended packets; with `names`, also those on DNS packets."""
        found = []
        for namespace, tracer in self._tracers.items():
            heads: dict[int, bytes] = {}
            for step in tracer.steps():
                if step.head:
                    heads[step.packet] = step.head
                if step.verdict in _FINAL:
                    seen = _seen(heads.get(step.packet, b""), names=names)
                    found.append(_nft_verdict(namespace, self._spaces[namespace], step, seen))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()


def _seen(head: bytes, *, names: bool) -> PacketHeader | None:
    try:
        return of_packet(head, names=names) if head else None
    except (struct.error, IndexError, ValueError):
        return None


def _nft_verdict(
    namespace: str, space: NetNS, step: TraceStep, seen: PacketHeader | None
) -> NftVerdict:
    number, comment, rejects = None, "", False
    if step.kind == "rule":
        with Nft(space) as opened:
            rules = opened.expressions(Table(step.family, step.table))
        chain = [(rule, does) for rule, does in rules if rule.chain == step.chain]
        for index, (rule, does) in enumerate(chain, 1):
            if rule.handle == step.handle:
                number, comment = index, rule.comment
                rejects = b"reject\0" in does or b"REJECT\0" in does
    return NftVerdict(
        namespace,
        f"{step.family} {step.table}",
        step.chain,
        number,
        step.handle,
        comment,
        rejects,
        seen,
    )


_EVENT: Final = re.compile(
    r"-(?P<pid>\d+)\s+\[\d+\].*kfree_skb:.*location=(?P<where>\S+?)(\+\S+)? reason: (?P<reason>\w+)"
)
_MARK: Final = re.compile(r"-(?P<pid>\d+)\s+\[\d+\].*netmodes-autopsy")
_INSTANCE: Final = "netmodes-autopsy-"
UNINFORMATIVE: Final = frozenset(
    {
        "NOT_SPECIFIED",
        "CONSUMED",
        "NO_SOCKET",
        "SOCKET_CLOSE",
        "SOCKET_FILTER",
        "SOCKET_RCVBUFF",
        "OTHERHOST",
        "UNHANDLED_PROTO",
        "NEIGH_FAILED",
        "QUEUE_PURGE",
        "UNICAST_IN_L2_MULTICAST",
    }
)
"""Drop reasons that are frequent, or that `causes` explains better."""


class DropReasons:
    """Context manager that reads the kernel's drop reasons.

    Without access to tracefs it reads nothing.
    """

    def __init__(self) -> None:
        self._name = f"{_INSTANCE}{os.getpid()}-{threading.get_native_id()}"
        self._root = self._pipe = -1
        if sandbox.inside():
            try:
                self._open()
            except (OSError, ValueError):
                self._close()

    def _open(self) -> None:
        self._root = _tracefs()
        self._remove_stale()
        os.mkdir(f"instances/{self._name}", dir_fd=self._root)
        self._write("buffer_size_kb", "128")
        self._pipe = self._file("trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._write("trace_marker", TABLE)
        found = _MARK.search(self._output())
        if not found:
            raise ValueError("tracefs did not return the mark")
        self._write("set_event_pid", found["pid"])
        self._write("events/skb/kfree_skb/enable", "1")

    def _remove_stale(self) -> None:
        """Remove tracing instances of killed runs; the kernel refuses if an instance is in use."""
        opened = os.open(
            "instances", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root
        )
        try:
            for name in os.listdir(opened):
                if name.startswith(_INSTANCE):
                    with contextlib.suppress(OSError):
                        os.rmdir(name, dir_fd=opened)
        finally:
            os.close(opened)

    def _file(self, name: str, flags: int) -> int:
        path = f"instances/{self._name}/{name}"
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=self._root)

    def _write(self, name: str, value: str) -> None:
        opened = self._file(name, os.O_WRONLY)
        try:
            os.write(opened, value.encode())
        finally:
            os.close(opened)

    def _output(self) -> str:
        read = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._pipe, 1 << 16):
                read += more
        return read.decode(errors="replace")

    def read(self) -> list[str]:
        """Return a line for each kind of packet drop since the last `read`, in order.

        A kind is the reason for the drop and the kernel function that dropped the packet.
        """
        if self._pipe < 0:
            return []
        found = [
            f"{match['reason']} in {match['where']}"
            for match in _EVENT.finditer(self._output())
            if match["reason"] not in UNINFORMATIVE
        ]
        return list(dict.fromkeys(found))

    def _close(self) -> None:
        """Stop reading, and remove the tracing instance."""
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                self._write("events/skb/kfree_skb/enable", "0")
            os.close(self._pipe)
        if self._root >= 0:
            with contextlib.suppress(OSError):
                os.rmdir(f"instances/{self._name}", dir_fd=self._root)
            os.close(self._root)
        self._root = self._pipe = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _tracefs() -> int:
    """Return a descriptor of the root of tracefs. Raises `OSError` if there is no access."""
    with tempfile.TemporaryDirectory(dir="/run", prefix="netmodes-tracefs-") as directory:
        syscalls.mount("tracefs", directory, "tracefs", syscalls.MS_NOSUID | syscalls.MS_NODEV)
        try:
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            syscalls.umount(directory)
