"""The three network files: /etc/hosts, /etc/hostname, /etc/resolv.conf.

They are in the container's state directory and are bind-mounted over the image's files, so that
the host can change them while the container runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from linux import proc
from runtime.records import EndpointRecord

NAMES: Final = ("hosts", "hostname", "resolv.conf")
_LOCALHOST: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
RESOLVER: Final = "127.0.0.11"
"""Address of the resolver for containers on user-defined networks, the same as Docker's."""
_BEHIND_STUB: Final = "/run/systemd/resolve/resolv.conf"
"""File in which systemd-resolved lists the resolvers behind its stub on 127.0.0.53."""


def hosts(names: list[str], endpoints: Sequence[EndpointRecord]) -> str:
    """Return `localhost`, and the container's names at each of its addresses."""
    lines = [
        f"{address.split('/')[0]}\t{' '.join(names)}\n"
        for endpoint in endpoints
        for address in (endpoint.address, endpoint.address6)
        if address
    ]
    return _LOCALHOST + "".join(lines)


def extra_hosts(entries: list[str]) -> str:
    """Return the /etc/hosts lines for the requested `name:address` pairs."""
    pairs = (entry.partition(":") for entry in entries)
    return "".join(f"{address}\t{name}\n" for name, _, address in pairs)


def servers(addresses: Sequence[str]) -> str:
    """Return a resolv.conf with only these resolvers; empty text if there are none."""
    return "".join(f"nameserver {address}\n" for address in addresses)


def resolv_conf(host: str, behind_stub: str) -> str:
    """Return the host's resolv.conf without resolvers on the host's loopback.

    A container with a separate netns cannot reach 127.0.0.53. If the host has only such
    resolvers, return those behind the stub instead.
    """
    for text in (host, behind_stub, host):
        kept = [line for line in text.splitlines() if not _names_loopback(line)]
        if any(line.startswith("nameserver") for line in kept):
            break
    return "\n".join(kept) + "\n"


def through_resolver(host: str) -> str:
    """Return the host's resolv.conf with mydocker's resolver in place of the host's.

    With `ndots:0` a client queries a name without a dot unchanged, and under the search domains
    only if the name does not exist: no outside resolver must receive a peer's name.
    """
    kept, options = [], ["ndots:0"]
    for line in host.splitlines():
        match line.split():
            case ["search" | "domain", *_]:
                kept.append(line)
            case ["options", *given]:
                options += [item for item in given if not item.startswith("ndots:")]
            case _:
                pass
    return "\n".join([f"nameserver {RESOLVER}", *kept, f"options {' '.join(options)}"]) + "\n"


def _names_loopback(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    try:
        return ip_address(words[1].partition("%")[0]).is_loopback
    except ValueError:
        return False


def read_or_nothing(path: str) -> str:
    """Return the text of one of the host's files; empty if it does not exist."""
    try:
        return proc.read(path).decode(errors="replace")
    except OSError:
        return ""


def _host_settings(*keywords: str) -> list[list[str]]:
    lines = (line.split() for line in read_or_nothing("/etc/resolv.conf").splitlines())
    return [words[1:] for words in lines if words and words[0] in keywords]


def upstream() -> list[str]:
    """Return the host's own resolvers, in order."""
    return [words[0] for words in _host_settings("nameserver") if words]


def searched() -> list[str]:
    """Return the host's search domains: its last `search` or `domain` line."""
    return [[], *_host_settings("search", "domain")][-1]


def own_resolv_conf() -> str:
    """Return the resolv.conf of a container with a separate netns."""
    return resolv_conf(read_or_nothing("/etc/resolv.conf"), read_or_nothing(_BEHIND_STUB))


def write(directory: str, name: str, text: str) -> None:
    """Write one of the files in place (a bind mount follows the inode), readable by all."""
    path = f"{directory}/{name}"
    proc.write(path, text.encode(), mode=0o644)
    os.chmod(path, 0o644)  # regardless of the caller's umask
