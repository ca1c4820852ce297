"""Name resolution inside a container, by the C library and by DNS queries of the harness.

An image need not have a program that calls the C library. A process of the harness therefore enters
the container's namespaces and root, and calls the C library there. In a container with a user-space
kernel the agent calls it. DNS queries of the harness go to one resolver and return its whole
response.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec, TypeVar

import dns.message
import dns.query
import dns.rcode

from harness.model.plan import Family
from harness.model.topology import Address
from harness.probe.resolver import nameservers
from harness.probe.sockets import ADDRESS_FAMILIES
from harness.testbench.listener import SOCKET_KINDS, Transport
from harness.world.host import HostMachine, quiet_fork
from linux.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, setns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dns.message import Message

    from harness.testbench.container import Container

P = ParamSpec("P")
T = TypeVar("T")

BOUND: Final = 30.0
"""Bound on a call of the C library, in seconds. Its default is five for a resolver, twice."""
PATIENCE: Final = 5.0
"""Bound on the reply of a resolver to the harness, in seconds. A reply takes milliseconds."""

RESOLV_CONF: Final = "/etc/resolv.conf"


class LookupResult(NamedTuple):
    """Addresses of a name; if there are none, the C library's error message."""

    addresses: frozenset[Address]
    reason: str = ""


# --- by the C library ------------------------------------------------------------


def look_up(
    host: HostMachine, container: Container, name: str, family: Family | None = None
) -> LookupResult:
    """Return the result of getaddrinfo(3) inside a container.

    Without `family` one call resolves both address families.
    """
    if container.own_stack:
        words = name.encode(), int(_address_family(family))
        found, reason = container.agent().do(["resolve", *words])[0]
        return LookupResult(frozenset(map(ip_address, found)), reason)
    return host.call(inside, container.facts().pid, by_name, name, family)


def name_of(host: HostMachine, container: Container, address: Address) -> str:
    """Return the result of getnameinfo(3) inside a container; empty if the address has no name."""
    if container.own_stack:
        return str(container.agent().do(["reverse", str(address)])[0])
    return host.call(inside, container.facts().pid, by_address, str(address))


def hostname(host: HostMachine, container: Container) -> str:
    """Return the result of gethostname(2) inside a container."""
    if container.own_stack:
        return str(container.agent().do(["hostname"])[0])
    return host.call(inside, container.facts().pid, socket.gethostname)


def by_name(name: str, family: Family | None = None) -> LookupResult:
    """Resolve a name in the calling process; use `HostMachine.call` to resolve it in the host."""
    # A name in bytes, because Python would load a codec for text, in the container's root.
    try:
        found = socket.getaddrinfo(name.encode(), None, _address_family(family), socket.SOCK_STREAM)
    except socket.gaierror as error:
        return LookupResult(frozenset(), str(error.strerror))
    return LookupResult(frozenset(ip_address(str(item[4][0])) for item in found))


def by_address(address: str) -> str:
    """Return the name of an address, resolved in the calling process; empty if it has none."""
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except socket.gaierror:
        return ""


def _address_family(family: Family | None) -> int:
    return ADDRESS_FAMILIES[family] if family else socket.AF_UNSPEC


def inside(pid: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in the root, mount, network and UTS namespaces of a process.

    `pid` is the pid in the caller's pid namespace; for a container, run this function through
    `HostMachine.call`. Raises `TimeoutError` if the function takes longer than `BOUND`.
    """
    reading, writing = os.pipe()
    child = quiet_fork()
    if not child:
        try:
            _enter(pid)
            os.write(writing, pickle.dumps((True, function(*args, **kwargs))))
        except BaseException as error:
            os.write(writing, pickle.dumps((False, repr(error))))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        if not select.select([reading], [], [], BOUND)[0]:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError(f"{function.__name__}{args} in process {pid} took over {BOUND} s")
        with open(reading, "rb", closefd=False) as pipe:
            answer = pipe.read()
    finally:
        os.close(reading)
        os.waitpid(child, 0)
    if not answer:
        raise RuntimeError(f"{function.__name__}{args} in process {pid} ended without a result")
    fine, value = pickle.loads(answer)  # noqa: S301 # from our own child
    if not fine:
        raise RuntimeError(f"{function.__name__}{args} in process {pid} failed: {value}")
    result: T = value
    return result


def _enter(pid: int) -> None:
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    pidfd = os.pidfd_open(pid)
    setns(pidfd, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)
    os.fchdir(root)
    os.chroot(".")


# --- queries to a resolver ---------------------------------------------------------


def query(
    container: Container,
    name: str,
    kind: str = "A",
    *,
    transport: Transport = "udp",
    of: Address | None = None,
) -> Message:
    """Send a DNS query from inside a container; return the response.

    The query goes to the first resolver in resolv.conf, or to `of`. Raises `OSError` if the
    resolver cannot be reached, and `dns.exception.Timeout` if it does not reply.
    """
    query = dns.message.make_query(name, kind)
    with _to(container, transport, of) as (opened, server):
        opened.setblocking(False)
        if transport == "tcp":
            return dns.query.tcp(query, server, PATIENCE, sock=opened)
        return dns.query.udp(query, server, PATIENCE, sock=opened)


def query_concurrently(container: Container, name: str, kinds: Sequence[str]) -> list[Message]:
    """Send several queries about a name before reading a response; return the responses.

    All queries use one socket, as those of the C library for both address families do. Raises
    `dns.exception.Timeout` if a query gets no response.
    """
    queries = [dns.message.make_query(name, kind) for kind in kinds]
    with _to(container, "udp") as (opened, _):
        for query in queries:
            opened.send(query.to_wire())
        opened.setblocking(False)
        until = time.time() + PATIENCE
        answers = [dns.query.receive_udp(opened, expiration=until) for _ in queries]
    by_id = {answer.id: answer for answer, *_ in answers}
    return [by_id[query.id] for query in queries]


def abandon_queries(container: Container, name: str, *, questions: int) -> None:
    """Send queries over one TCP connection, and close it without waiting for a response."""
    query = dns.message.make_query(name, "A").to_wire()
    with _to(container, "tcp") as (opened, _):
        opened.sendall((len(query).to_bytes(2, "big") + query) * questions)


@contextmanager
def _to(
    container: Container, transport: Transport, of: Address | None = None
) -> Iterator[tuple[socket.socket, str]]:
    """Yield a socket that is connected to a resolver, so that a refusal is reported at once."""
    server = of or nameservers(container.read(RESOLV_CONF))[0]
    family = ADDRESS_FAMILIES[server.version]
    with container.net.socket(family, SOCKET_KINDS[transport]) as opened:
        opened.settimeout(PATIENCE)
        opened.connect((str(server), 53))
        yield opened, str(server)


def values(answer: Message) -> set[str]:
    """Return the records of a DNS response, as text."""
    return {rdata.to_text() for rrset in answer.answer for rdata in rrset}


def rcode(answer: Message) -> str:
    """Return the name of a DNS response's code, such as `NXDOMAIN`."""
    return dns.rcode.to_text(answer.rcode())


# --- the host's own files ----------------------------------------------------------


@contextmanager
def host_file(host: HostMachine, text: str, path: str = RESOLV_CONF) -> Iterator[None]:
    """Replace the text of one of the host's files while the body runs."""
    before = host.call(_replace, path, text)
    try:
        yield
    finally:
        host.call(_replace, path, before)


def _replace(path: str, text: str | None) -> str | None:
    """Write a file, or remove it if `text` is `None`; return its former text."""
    before: str | None = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            before = file.read()
    if text is None:
        os.unlink(path)
        return before
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return before
