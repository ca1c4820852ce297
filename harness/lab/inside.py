"""`inside NAME [COMMAND…]`: run a command, or a shell, in a network namespace by its name.

Only the network changes: files, processes and the name server stay those of the host.
A name is an entry of /run/netns, as for ip-netns(8).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from linux.netns import NetNS
from linux.syscalls import CLONE_NEWNET, setns

NAMES: Final = Path("/run/netns")
PLACE: Final = "NETMODES_PLACE"
"""The environment variable with the name of the namespace; the prompt shows it."""
RC: Final = Path("/run/netmodes/shellrc")
"""What an interactive shell of the lab reads first."""

USAGE: Final = "usage: inside NAME [COMMAND…]    without a command: a shell"


def shell(environment: Mapping[str, str]) -> list[str]:
    """The command line of an interactive shell: the user's, or sh."""
    path = environment.get("SHELL", "")
    if not os.access(path, os.X_OK):
        return ["/bin/sh"]
    return [path, "--rcfile", str(RC)] if os.path.basename(path) == "bash" else [path]


def names() -> list[str]:
    """The namespaces that have a name."""
    return sorted(os.listdir(NAMES)) if NAMES.is_dir() else []


def enter(name: str) -> None:
    """Move the calling process into the namespace called `name`.

    Raises `OSError` when there is none, or none any more behind that name.
    """
    if name not in names():  # nor a path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with NetNS.at(str(NAMES / name)) as space:
        setns(space.fd, CLONE_NEWNET)


def main(argv: Sequence[str]) -> int:
    """Become the command; returns only an exit code of failure, as a shell gives it."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stderr.write(f"{USAGE}\nnames: {' '.join(names())}\n")
        return 2
    name, *command = argv
    try:
        enter(name)
    except OSError as error:
        sys.stderr.write(_refusal(name, error))
        return 1
    command = command or shell(os.environ)
    try:
        os.execvpe(command[0], command, {**os.environ, PLACE: name})  # noqa: S606 - what it is for
    except OSError as error:
        sys.stderr.write(f"inside: {command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126


def _refusal(name: str, error: OSError) -> str:
    if name in names() and isinstance(error, FileNotFoundError):
        gone = os.readlink(NAMES / name)
        return f"inside: {name!r} leads nowhere any more: {gone} is gone with its process\n"
    return (
        f"inside: no namespace is called {name!r}: {error.strerror}\n"
        f"names: {' '.join(names())}\n"
        f"to name a container's: ln -s /proc/PID/ns/net {NAMES}/NAME\n"
    )
