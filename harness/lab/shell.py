"""Files for a shell in the lab: names of namespaces, programs, and the prompt.

The files are in the host's private /run and disappear together with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.adapters.protocol import Adapter
from harness.sandbox import namespaces
from harness.world.host_files import cache
from linux.netns import NetNS
from linux.syscalls import CLONE_NEWNET, MS_BIND, mount, setns, umount

HOME: Final = Path("/run/netmodes")
BIN: Final = HOME / "bin"
SUBSTITUTES: Final = HOME / "spare"
"""Substitutes for missing programs, last on the PATH: programs of the machine come first."""
PICTURE: Final = HOME / "picture"

_PROGRAMS: Final = {
    BIN / "netmodes": "harness.cli.main",
    BIN / "mydocker": "runtime.cli.main",
    BIN / "inside": "harness.lab.shell",
    SUBSTITUTES / "ip": "harness.lab.ip",
    SUBSTITUTES / "ping": "harness.lab.ping",
}
_SYSTEM: Final = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


def install(
    spaces: Mapping[str, NetNS],
    picture: str,
    outer: Mapping[str, str],
    scripts: Mapping[str, str] | None = None,
) -> None:
    """Write all files for the shell.

    The caller must be in all of the host's namespaces. `outer` is the environment on which the
    lab's environment is based. `scripts` are additional programs.
    """
    NAMES.mkdir(exist_ok=True)  # podman keeps its names there too
    for name, space in spaces.items():
        handle = NAMES / name
        handle.touch()
        mount(f"/proc/self/fd/{space.fd}", str(handle), flags=MS_BIND)
    for directory in (BIN, SUBSTITUTES):
        directory.mkdir(exist_ok=True)
    programs = {program: _launcher(program.name, module) for program, module in _PROGRAMS.items()}
    programs |= {BIN / name: script for name, script in (scripts or {}).items()}
    for program, content in programs.items():
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    PICTURE.write_text(picture, encoding="utf-8")
    RC.write_text(_shellrc(outer), encoding="utf-8")
    namespaces.MARK.touch()


def remove_names(names: Iterable[str]) -> None:
    """Remove the names of namespaces, because a name keeps its namespace alive.

    The caller must be in all of the host's namespaces.
    """
    for name in names:
        handle = NAMES / name
        with contextlib.suppress(OSError):  # the shell's user may have removed it
            umount(str(handle))
            handle.unlink()


def outer_environment(runtime: Adapter | None) -> dict[str, str]:
    """Return this process's environment and the variables that the runtime's commands need."""
    return {**os.environ, **getattr(runtime, "environment", {})}


def environment(outer: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the lab's shell."""
    own = {"PATH": _path(outer), "ENV": str(RC), "XDG_CACHE_HOME": cache()}
    return {**outer, **own, NAMESPACE: "host"}


def _path(outer: Mapping[str, str]) -> str:
    python = os.path.dirname(sys.executable)
    inherited = outer.get("PATH", "").split(os.pathsep)
    every = (str(BIN), python, *filter(None, inherited), *_SYSTEM, str(SUBSTITUTES))
    return os.pathsep.join(dict.fromkeys(every))


def _launcher(name: str, module: str) -> str:
    """Return a script that runs this program from any directory, whether it is installed or not."""
    root = str(Path(__file__).parents[2])
    source = (
        f"import sys; sys.argv[0] = {name!r}; sys.path.insert(0, {root!r}); "
        f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -c {shlex.quote(source)} "$@"\n'


def _shellrc(outer: Mapping[str, str]) -> str:
    """Return the startup file of an interactive bash or sh: the user's settings, then the lab's.

    The lab has a history file of its own, so that the user's history does not change.
    """
    return f"""\
if [ "${{BASH_VERSION:-}}" ] && [ -r ~/.bashrc ]; then . ~/.bashrc; fi
unset PROMPT_COMMAND
HISTFILE={HOME}/history
PATH={shlex.quote(_path(outer))}
PS1='lab:${NAMESPACE} ${{PWD##*/}} # '
"""


NAMES: Final = Path("/run/netns")
NAMESPACE: Final = "NETMODES_PLACE"
"""The environment variable with the name of the namespace; the prompt shows it."""
RC: Final = Path("/run/netmodes/shellrc")
"""Startup file of an interactive shell of the lab."""

USAGE: Final = "usage: inside NAME [COMMAND…]    (default command: a shell)"


def shell(environment: Mapping[str, str]) -> list[str]:
    """Return the command line of an interactive shell: the user's shell, or sh."""
    path = environment.get("SHELL", "")
    if not os.access(path, os.X_OK):
        return ["/bin/sh"]
    return [path, "--rcfile", str(RC)] if os.path.basename(path) == "bash" else [path]


def names() -> list[str]:
    """Return the names of the lab's namespaces."""
    return sorted(os.listdir(NAMES)) if NAMES.is_dir() else []


def enter(name: str) -> None:
    """Move the calling process into the namespace called `name`.

    Raises `OSError` if there is no such namespace.
    """
    if name not in names():  # a path is not a name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with NetNS.at(str(NAMES / name)) as space:
        setns(space.fd, CLONE_NEWNET)


def main(argv: Sequence[str]) -> int:
    """Execute a command in a namespace of the lab; return a shell's exit code if that fails."""
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
        os.execvpe(command[0], command, {**os.environ, NAMESPACE: name})  # noqa: S606 - what it is for
    except OSError as error:
        sys.stderr.write(f"inside: {command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126


def _refusal(name: str, error: OSError) -> str:
    if name in names() and isinstance(error, FileNotFoundError):
        gone = os.readlink(NAMES / name)
        return f"inside: the namespace {name!r} no longer exists: the process of {gone} has ended\n"
    return (
        f"inside: cannot enter the namespace {name!r}: {error.strerror}\n"
        f"names: {' '.join(names())}\n"
        f"to name the namespace of a container: ln -s /proc/PID/ns/net {NAMES}/NAME\n"
    )
