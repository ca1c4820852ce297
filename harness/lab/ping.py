"""`netmodes ping HOST…`: one echo request to each host, and the TTL of the reply.

For the lab, on machines without ping(8). Needs only a raw socket.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple, cast

from harness.model.plan import Family
from harness.probe import icmp
from harness.sandbox import sandbox

_FAMILIES: Final = {socket.AF_INET: 4, socket.AF_INET6: 6}
_OUTSIDE: Final = (
    "ping: this would send packets from the machine itself, and netmodes never does that. "
    "Run it in a lab: netmodes lab\n"
)


class EchoReply(NamedTuple):
    """An ICMP message in reply to a request; `ttl` is that on arrival."""

    message: icmp.Message
    sender: str
    ttl: int


def main(argv: Sequence[str]) -> int:
    """Ping every host; return 0 if all replied, 1 if one did not, 2 for bad usage."""
    arguments = _parser().parse_args(argv)
    if not sandbox.inside():
        sys.stderr.write(_OUTSIDE)
        return 1
    width = max(len(host) for host in arguments.host)
    answered = True
    for host in arguments.host:
        for sequence in range(1, arguments.count + 1):
            fine, said = ask(
                host, sequence, family=arguments.family, ttl=arguments.ttl, within=arguments.within
            )
            answered &= fine
            sys.stdout.write(f"{host:<{width}}  {said}\n")
            sys.stdout.flush()
    return 0 if answered else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netmodes ping",
        description="One echo request to each host, and the TTL with which the answer came.",
    )
    parser.add_argument("host", nargs="+", help="an address, or a name")
    parser.add_argument("-c", dest="count", type=int, default=1, help="requests per host")
    parser.add_argument("-t", dest="ttl", type=int, help="TTL to send with")
    parser.add_argument("-W", dest="within", type=float, default=2.0, help="seconds to wait")
    only = parser.add_mutually_exclusive_group()
    for number in (4, 6):
        only.add_argument(f"-{number}", dest="family", action="store_const", const=number)
    return parser


def ask(
    host: str, sequence: int, *, family: Family | None, ttl: int | None, within: float
) -> tuple[bool, str]:
    """Return whether `host` replied within `within` seconds, and a line about it."""
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6, None: socket.AF_UNSPEC}[family]
    try:
        found = socket.getaddrinfo(host, None, wanted, socket.SOCK_RAW)
    except socket.gaierror as error:
        return False, f"no such name: {error.strerror}"
    kind, _, _, _, address = found[0]
    version = cast("Family", _FAMILIES[socket.AddressFamily(kind)])
    with _socket(version, ttl) as opened:
        began = time.perf_counter()
        try:
            identifier = os.getpid() & 0xFFFF
            request = icmp.echo_request(version, identifier, sequence, os.urandom(16))
            opened.sendto(request, address)
        except OSError as error:
            return False, f"not sent: {error.strerror}"
        for heard in _answers(opened, version, (identifier, sequence), began + within):
            took = (time.perf_counter() - began) * 1000
            if heard.message.kind == icmp.ECHO_REPLY[version]:
                return True, f"reply from {heard.sender}, ttl {heard.ttl}, {took:.2f} ms"
            met = icmp.name(version, heard.message.kind, heard.message.code)
            return False, f"{met} from {heard.sender}, ttl {heard.ttl}, {took:.2f} ms"
    return False, f"no reply within {within:g} s"


def _socket(family: Family, ttl: int | None) -> socket.socket:
    if family == 4:
        opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        option = (socket.IPPROTO_IP, socket.IP_TTL)
    else:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        option = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    if ttl is not None:
        opened.setsockopt(*option, ttl)
    return opened


def _answers(
    opened: socket.socket, family: Family, asked: tuple[int, int], deadline: float
) -> Iterator[EchoReply]:
    """Yield the replies to `asked` (identifier and sequence) until `deadline`."""
    while (left := deadline - time.perf_counter()) > 0:
        opened.settimeout(left)
        try:
            packet, beside, _, sender = opened.recvmsg(1 << 16, 64)
        except TimeoutError:
            return
        message = icmp.parse(family, packet)
        if message is None:
            continue
        about: tuple[int, int] | None = None
        if message.kind == icmp.ECHO_REPLY[family]:
            about = (message.identifier, message.sequence)
        elif message.kind in icmp.ERRORS[family]:
            about = icmp.quoted_echo(family, message.payload)
        if about == asked:
            ttl = message.ttl if message.ttl is not None else _hop_limit(beside)
            yield EchoReply(message, str(ip_address(sender[0].partition("%")[0])), ttl)


def _hop_limit(beside: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in beside:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
            number: int = struct.unpack_from("=i", data)[0]
            return number
    raise AssertionError("the kernel tells the hop limit of every packet (IPV6_RECVHOPLIMIT)")
