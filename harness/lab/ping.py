"""`netmodes ping HOST…`: send one echo request to each host and print the TTL of the reply.

The command is for the lab on machines without ping(8). It needs only a raw socket.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

from harness.model.plan import Family
from harness.probe import icmp
from harness.probe.sockets import ICMP_PROTOCOLS, IP_LEVELS, raw_socket, receive
from harness.sandbox import sandbox

_TTL: Final[dict[Family, int]] = {4: socket.IP_TTL, 6: socket.IPV6_UNICAST_HOPS}
_OUTSIDE: Final = (
    "ping: this ping works only in a lab, so that the machine itself sends no packets; "
    "start one with: netmodes lab\n"
)


def main(argv: Sequence[str]) -> int:
    """Ping every host; return 0 if all hosts replied, 1 if one did not, 2 for bad usage."""
    arguments = _parser().parse_args(argv)
    if not sandbox.inside():
        sys.stderr.write(_OUTSIDE)
        return 1
    width = max(len(host) for host in arguments.host)
    answered = True
    for host in arguments.host:
        for sequence in range(1, arguments.count + 1):
            fine, result = _ping(
                host, sequence, family=arguments.family, ttl=arguments.ttl, within=arguments.within
            )
            answered &= fine
            sys.stdout.write(f"{host:<{width}}  {result}\n")
            sys.stdout.flush()
    return 0 if answered else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netmodes ping",
        description="Send an echo request to each host, and print the TTL of the reply.",
    )
    parser.add_argument("host", nargs="+", help="address or name")
    parser.add_argument(
        "-c",
        dest="count",
        type=int,
        default=1,
        help="number of requests for each host (default: 1)",
    )
    parser.add_argument("-t", dest="ttl", type=int, help="TTL of the requests")
    parser.add_argument(
        "-W",
        dest="within",
        type=float,
        default=2.0,
        help="seconds to wait for a reply (default: 2)",
    )
    only = parser.add_mutually_exclusive_group()
    for number in (4, 6):
        only.add_argument(f"-{number}", dest="family", action="store_const", const=number)
    return parser


def _ping(
    host: str, sequence: int, *, family: Family | None, ttl: int | None, within: float
) -> tuple[bool, str]:
    """Return whether `host` replied within `within` seconds, and a line of text about the reply."""
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6, None: socket.AF_UNSPEC}[family]
    try:
        found = socket.getaddrinfo(host, None, wanted, socket.SOCK_RAW)
    except socket.gaierror as error:
        return False, f"no such name: {error.strerror}"
    version: Family = 4 if found[0][0] == socket.AF_INET else 6
    with raw_socket(version, ICMP_PROTOCOLS[version], socket.socket) as opened:
        if ttl is not None:
            opened.setsockopt(IP_LEVELS[version], _TTL[version], ttl)
        began = time.perf_counter()
        echo = (os.getpid() & 0xFFFF, sequence)
        try:
            opened.sendto(icmp.echo_request(version, *echo, os.urandom(16)), found[0][4])
        except OSError as error:
            return False, f"not sent: {error.strerror}"
        while (left := began + within - time.perf_counter()) > 0:
            opened.settimeout(left)
            if (packet := receive(opened, 1 << 16)) is None:
                continue
            message = icmp.parse(version, packet.data)
            if message is None or echo != _request_of(version, message):
                continue
            took = (time.perf_counter() - began) * 1000
            details = f"from {packet.source}, ttl {message.ttl or packet.ttl}, {took:.2f} ms"
            if message.kind == icmp.ECHO_REPLY[version]:
                return True, f"reply {details}"
            return False, f"{icmp.name(version, message.kind, message.code)} {details}"
    return False, f"no reply within {within:g} s"


def _request_of(family: Family, message: icmp.Message) -> tuple[int, int] | None:
    """Return identifier and sequence number of the echo request that a packet answers.

    The packet is an echo reply or an ICMP error.
    """
    if message.kind == icmp.ECHO_REPLY[family]:
        return message.identifier, message.sequence
    if message.kind in icmp.ERRORS[family]:
        return icmp.quoted_echo(family, message.payload)
    return None
