"""Published ports, `-p [address:][host port:]port[/protocol]`: parse, reserve, redirect (DNAT).

As in Docker (https://docs.docker.com/engine/network/port-publishing/), a port without an address
is published on every address of the host, one without a host port on a free port. Ranges
(`8000-8009:80-89`) map port by port; a range of host ports for a single container port means any
free one of them. IPv6 addresses are in brackets.

A reserved port is a bound socket. Its DNAT rules are in a separate table for the container, which
lives as long as the sockets that pid 1 keeps open. `runtime.network.firewall` has the rules of
the networks.
"""

from __future__ import annotations

import ctypes
import errno
import re
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self, cast, get_args

from linux import rtnetlink, rtnetlink_dump
from linux.conntrack import Flow, port_mark
from linux.netlink import Netlink, Request
from linux.nftables import PROTOCOLS as PROTOCOL_NUMBERS
from linux.nftables import (
    Expression,
    Hook,
    Nft,
    Table,
    add_chain,
    add_rule,
    add_table,
    daddr,
    del_table,
    dnat,
    dport,
    family,
    l4proto,
    to_local,
)
from runtime.errors import (
    ConflictError,
    InvalidError,
    MydockerError,
    UnsupportedError,
    exhausted,
    is_exhausted,
)
from runtime.network import sysctl
from runtime.network.endpoint import drop, marked, way_out
from runtime.network.firewall import GUARD, LOOPBACK, RAW, loopback_guard
from runtime.records import Address, EndpointRecord, Publication

if TYPE_CHECKING:
    from linux.conntrack import FlowWatch

Protocol = Literal["tcp", "udp", "sctp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)

# --- parse --------------------------------------------------------------------

_RANGE: Final = r"([0-9]{1,5})(?:-([0-9]{1,5}))?"
_LAST: Final = 65535


class PortRequest(NamedTuple):
    """One port to publish, on a host port from `low` to `high`; 0 for any free one.

    `address` is the host's address, `""` for all its addresses.
    """

    protocol: Protocol
    address: str
    low: int
    high: int
    port: int


def parse(asked: str, text: str) -> list[PortRequest]:
    """Parse published ports; `InvalidError` names the mistake."""
    asked = f"{asked}: publish {text!r}"
    written, slash, protocol = text.partition("/")
    protocol = protocol.lower()
    if (protocol if slash else "tcp") not in PROTOCOLS:
        raise InvalidError(asked, f"unknown protocol {protocol!r}", remedy="tcp, udp or sctp")
    six, bracket, rest = written[1:].partition("]:") if written[:1] == "[" else ("", "", written)
    parts = rest.split(":")
    if len(parts) > (2 if bracket else 3) or (written[:1] == "[") != bool(bracket):
        raise InvalidError(
            asked, "the port mapping is malformed", remedy="-p [ADDRESS:][HOST PORT:]PORT[/udp]"
        )
    four = parts[0] if len(parts) == 3 else ""
    host = parts[-2] if len(parts) > 1 else ""
    return list(
        _pairs(
            asked,
            cast("Protocol", protocol or "tcp"),
            _address(asked, six, 6) if bracket else _address(asked, four, 4),
            _range(asked, host) if host not in ("", "0") else None,
            _range(asked, parts[-1]),
        )
    )


def _pairs(
    asked: str, protocol: Protocol, address: str, host: range | None, ports: range
) -> Iterator[PortRequest]:
    if host is None:
        for port in ports:
            yield PortRequest(protocol, address, 0, 0, port)
    elif len(ports) == 1:
        yield PortRequest(protocol, address, host[0], host[-1], ports[0])
    elif len(host) == len(ports):
        for outside, port in zip(host, ports, strict=True):
            yield PortRequest(protocol, address, outside, outside, port)
    else:
        raise InvalidError(
            asked, f"{len(host)} ports of the host do not fit {len(ports)} of the container"
        )


def _address(asked: str, text: str, version: int) -> str:
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidError(asked, f"the address is malformed: {error}") from None
    if address.version != version or "%" in text:
        raise InvalidError(asked, f"{text} is not an IPv{version} address of the host")
    return str(address)


def _range(asked: str, text: str) -> range:
    found = re.fullmatch(_RANGE, text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= _LAST:
        raise InvalidError(asked, f"{text!r} is not a port or range of ports from 1 to {_LAST}")
    return range(first, last + 1)


def exposed(asked: str, entries: Iterable[str]) -> list[PortRequest]:
    """Return the ports that `-P` publishes, from those of the image or `--expose` (`80/tcp`)."""
    found = (wanted for entry in entries for wanted in parse(asked, entry))
    return list(dict.fromkeys(found))


# --- reserve ------------------------------------------------------------------

EVERY: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - what is meant is every address
_KINDS: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_TRIES: Final = 64
"""Number of free ports to try for one that is free on every address."""
_RELAYED: Final = ("::", "::1")
"""Addresses with the IPv6 loopback: the daemon relays its connections, except for SCTP."""
_BACKLOG: Final = 512
_SO_ATTACH_FILTER: Final = 26
_DESTINATION: Final = -0x100000 + 24 & 0xFFFFFFFF
"""Offset of the IPv6 destination for a BPF program: SKF_NET_OFF and 24 bytes."""
_DROP_ALL: Final = ((0x06, 0, 0, 0),)
"""The classic BPF program `ret #0`; each instruction is code, jt, jf, k."""
_FOR_LOOPBACK6: Final = (
    *((0x20, 0, 0, _DESTINATION), (0x15, 0, 7, 0)),
    *((0x20, 0, 0, _DESTINATION + 4), (0x15, 0, 5, 0)),
    *((0x20, 0, 0, _DESTINATION + 8), (0x15, 0, 3, 0)),
    *((0x20, 0, 0, _DESTINATION + 12), (0x15, 0, 1, 1)),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)
"""`ld [destination + n]; jeq` for each of the four words of `::1`, or `ret #0`."""


class ReservedPorts:
    """Reserved host ports, and the nft socket that will own their rules.

    Pid 1 gets the descriptors; `close` closes the caller's copies.
    """

    def __init__(self, kept: Sequence[tuple[Publication, socket.socket]], nft: Nft) -> None:
        self._sockets = [opened for _, opened in kept]
        self.nft = nft
        self.publications = tuple(item for item, _ in kept)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """File descriptors that keep the host ports bound and the nft table alive."""
        return (self.nft.fileno(), *(opened.fileno() for opened in self._sockets))

    def kept_as(self, numbers: Sequence[int]) -> tuple[tuple[Publication, ...], int]:
        """Return the publications and the owner of the rules, by pid 1's descriptor numbers."""
        rules, *own = numbers
        kept = zip(self.publications, own, strict=True)
        return tuple(item._replace(fd=fd) for item, fd in kept), rules

    def close(self) -> None:
        """Close the sockets."""
        self.nft.close()
        for opened in self._sockets:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve(
    asked: str, wanted: Iterable[PortRequest], versions: Sequence[Literal[4, 6]]
) -> ReservedPorts:
    """Reserve ports on the host's addresses of some families.

    `ConflictError` names a port that is in use, `InvalidError` an address that the host does not
    have or that cannot be used here; then no port stays reserved.
    """
    kept: list[tuple[Publication, socket.socket]] = []
    nft = Nft()
    try:
        for item in wanted:
            kept += _one(asked, item, _addresses(asked, item, versions))
    except BaseException:
        ReservedPorts(kept, nft).close()
        raise
    return ReservedPorts(kept, nft)


def _addresses(asked: str, wanted: PortRequest, versions: Sequence[Literal[4, 6]]) -> list[str]:
    if not wanted.address:
        return [EVERY[version] for version in versions]
    if ip_address(wanted.address).version not in versions:
        raise InvalidError(
            f"{asked}: publish on {wanted.address}",
            f"the container has no IPv{ip_address(wanted.address).version} address",
            "its networks do not have this address family",
            "mydocker network create --ipv6",
        )
    return [wanted.address]


def _one(
    asked: str, wanted: PortRequest, addresses: Sequence[str]
) -> list[tuple[Publication, socket.socket]]:
    """Reserve one of the allowed ports, the same on all addresses."""
    candidates = range(wanted.low, wanted.high + 1) if wanted.low else [0] * _TRIES
    refusal: MydockerError | None = None
    for port in candidates:
        kept: list[tuple[Publication, socket.socket]] = []
        try:
            for address in addresses:
                opened = _bind(asked, wanted, address, kept[0][0].host_port if kept else port)
                number = opened.getsockname()[1]
                item = Publication(wanted.protocol, address, number, wanted.port, opened.fileno())
                kept.append((item, opened))
        except BaseException as error:
            for _, opened in kept:
                opened.close()
            if not isinstance(error, ConflictError):
                raise
            refusal = error
        else:
            return kept
    assert refusal is not None
    raise refusal


def _bind(asked: str, wanted: PortRequest, address: str, port: int) -> socket.socket:
    asked = f"{asked}: publish port {port or 'chosen by the kernel'}/{wanted.protocol} on {address}"
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    try:
        opened = socket.socket(family, *_KINDS[wanted.protocol])
    except OSError as error:
        if is_exhausted(error):
            raise exhausted(asked, error) from error
        raise UnsupportedError(
            asked, str(error.strerror), f"the kernel does not support {wanted.protocol}"
        ) from error
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if wanted.protocol == "tcp":
            _claim_tcp(opened, address, port)
        else:
            opened.bind((address, port))
            # Some packets are not redirected: those to all nodes (ff02::1), for example.
            if address not in _RELAYED:
                _attach_filter(opened, _DROP_ALL)  # nothing reads from this socket
            elif address == "::":
                _attach_filter(opened, _FOR_LOOPBACK6)
    except OSError as error:
        opened.close()
        raise _refusal(asked, error) from error
    return opened


def _claim_tcp(opened: socket.socket, address: str, port: int) -> None:
    """Bind and listen, as a server would; then stop listening, unless a relay will accept.

    Listening detects another listener; a plain bind would also fail because of old connections
    (TIME_WAIT). Without a listener the kernel refuses a connection that is not redirected, and
    the port stays bound. A listener keeps the option SO_REUSEADDR: accepted connections inherit
    it, and their remains would otherwise block the next bind.
    """
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    opened.listen(_BACKLOG)
    if address not in _RELAYED:
        opened.shutdown(socket.SHUT_RD)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # else others could bind too


def _attach_filter(opened: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Attach a BPF program that drops unwanted packets before the kernel queues them."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *item) for item in program))
    option = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def _refusal(asked: str, error: OSError) -> MydockerError:
    match error.errno:
        case errno.EADDRINUSE:
            return ConflictError(
                asked,
                "the port is in use",
                "another container or a program of the host uses the port",
                "another port; `mydocker ps` and `ss -lntup` show the ports in use",
            )
        case errno.EADDRNOTAVAIL:
            return InvalidError(asked, "the host does not have this address", remedy="ip address")
        case errno.EACCES:
            return UnsupportedError(
                asked, "permission denied", "ports below 1024 need CAP_NET_BIND_SERVICE"
            )
        case _:
            return UnsupportedError(asked, str(error.strerror))


# --- redirect -----------------------------------------------------------------

_LOOPBACK6: Final = ip_network("::1/128")
_DSTNAT: Final = -100
_HOOKS: Final[tuple[Hook, ...]] = ("prerouting", "output")
_PREFIX: Final = "mydocker-"
"""Prefix of the tables of containers; the comments in their guard chain name the bridges."""


class PortTarget(NamedTuple):
    """Target of published ports in one address family: container address, bridge, bridge port."""

    address: Address
    bridge: str
    veth: str


Targets = Mapping[Literal[4, 6], PortTarget]


def table(identity: str) -> Table:
    """Return the nft table of one container."""
    return Table("inet", f"{_PREFIX}{identity[:12]}")


def dnat_rules(
    identity: str, name: str, publications: Iterable[Publication], targets: Targets
) -> list[Request]:
    """Return a container's whole table, as one transaction that replaces the present one."""
    own = table(identity)
    requests = [add_table(own, owned=True), del_table(own), add_table(own, owned=True)]
    requests += [add_chain(own, hook, hook=hook, priority=_DSTNAT, kind="nat") for hook in _HOOKS]
    for item in publications:
        target = targets.get(4 if ip_address(item.address).version == 4 else 6)
        if target is None:
            continue
        comment = f"{name}: {item.address} {item.host_port}/{item.protocol}"
        to_port = [*l4proto(item.protocol), *dport(item.host_port)]
        to = dnat(target.address, item.port)
        for hook in _HOOKS:
            if wanted := _to_host(item, hook):
                requests.append(add_rule(own, hook, wanted, to_port, to, comment=comment))
    requests.append(add_chain(own, GUARD, hook="prerouting", priority=RAW))
    for bridge in {target.bridge for target in targets.values()}:
        requests.append(loopback_guard(own, bridge, f"{bridge}: loopback"))
    return requests


def _to_host(item: Publication, hook: Hook) -> list[Expression]:
    """Return the match for the host addresses that a hook redirects; empty if it redirects none."""
    address = ip_address(item.address)
    if not address.is_unspecified:
        # Only the host may use the loopback, even if such packets arrive; ::1 is relayed.
        here = hook == "output" and address.version == 4
        return daddr(ip_network(address)) if here or not address.is_loopback else []
    every = [*family(address.version), *to_local()]
    if address.version == 6:
        return [*daddr(_LOOPBACK6, is_not=True), *every]
    return every if hook == "output" else [*daddr(LOOPBACK, is_not=True), *every]


def redirect(
    nft: Nft,
    identity: str,
    name: str,
    publications: Sequence[Publication],
    targets: Targets,
    *,
    flows: FlowWatch | None = None,
) -> None:
    """Redirect published ports to a container from now on, existing flows included.

    `nft` is the socket that owns the table, `flows` the flow watch, if there is one.
    """
    with Netlink() as host:
        for target in targets.values():
            sysctl.write(f"net.ipv4.conf.{target.bridge}.route_localnet", "1")
            # With br_netfilter a hairpin to itself returns by the bridge port it came from.
            host.send([rtnetlink.hairpin_port(rtnetlink_dump.link(host, target.veth).ifindex)])
        nft.apply(dnat_rules(identity, name, publications, targets))
        own = {item.address.ip for item in rtnetlink_dump.addresses(host)}
    found = marked(flows, *{port_mark(item.host_port) for item in publications})
    drop(flow for flow in found if _is_stale(flow, publications, own, targets))


def withdraw(bridges: Iterable[str]) -> None:
    """Undo the settings of bridges on which no container publishes a port any more."""
    with Nft() as nft:
        own = [item for item in nft.tables() if item.name.startswith(_PREFIX)]
        rules = [rule for item in own for rule in nft.rules(item) if rule.chain == GUARD]
    used = {rule.comment.partition(":")[0] for rule in rules}
    for bridge in set(bridges) - used:
        with suppress(FileNotFoundError):
            sysctl.write(f"net.ipv4.conf.{bridge}.route_localnet", "0")


def _is_stale(
    flow: Flow, publications: Iterable[Publication], own: set[Address], targets: Targets
) -> bool:
    """Return whether a flow to a published port still has another target.

    That target is a removed container.
    """
    asked = flow.original.destination
    version: Literal[4, 6] = 4 if asked.version == 4 else 6
    if version in targets and flow.reply.source == targets[version].address:
        return False
    for item in publications:
        address = ip_address(item.address)
        port = (PROTOCOL_NUMBERS[item.protocol], item.host_port)
        if (flow.original.protocol, flow.original.destination_port) != port:
            continue
        for_host = address.version == version and (asked in own or asked.is_loopback)
        if for_host if address.is_unspecified else asked == address:
            return True
    return False


class RelayedPort(NamedTuple):
    """Socket on the IPv6 loopback address, and the target of its connections or datagrams."""

    fd: int
    address: str
    port: int


def relays_of(
    publications: Sequence[Publication], endpoints: Sequence[EndpointRecord]
) -> list[RelayedPort]:
    """Return the published ports on the IPv6 loopback address, with their targets."""
    way = way_out(endpoints, 6)
    if way is None:
        return []
    address = str(ip_interface(way.address6).ip)
    return [
        RelayedPort(item.fd, address, item.port)
        for item in publications
        if item.protocol != "sctp" and item.address in _RELAYED
    ]
