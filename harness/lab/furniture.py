"""What a shell in the lab finds: names for namespaces, programs, a prompt.

All of it lies on the host's private /run and goes away with it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from harness import void
from harness.adapters.protocol import Adapter
from harness.lab import inside
from harness.world.files import cache
from linux.netns import NetNS
from linux.syscalls import MS_BIND, mount, umount

HOME: Final = Path("/run/netmodes")
BIN: Final = HOME / "bin"
SPARE: Final = HOME / "spare"
"""Programs for machines that lack them: last on the PATH, so that the machine's own come first."""
PICTURE: Final = HOME / "picture"

_PROGRAMS: Final = {
    BIN / "netmodes": "harness.cli",
    BIN / "mydocker": "runtime.cli",
    BIN / "inside": "harness.lab.inside",
    SPARE / "ip": "harness.lab.ip",
    SPARE / "ping": "harness.lab.ping",
}
_SYSTEM: Final = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


def furnish(
    spaces: Mapping[str, NetNS],
    picture: str,
    outer: Mapping[str, str],
    scripts: Mapping[str, str] | None = None,
) -> None:
    """Lay everything out. To be called by a process in all of the host's namespaces.

    `outer` is the environment from which that of the lab is made, `scripts` are programs more.
    """
    inside.NAMES.mkdir(exist_ok=True)  # podman keeps names of its own there
    for name, space in spaces.items():
        handle = inside.NAMES / name
        handle.touch()
        mount(f"/proc/self/fd/{space.fd}", str(handle), flags=MS_BIND)
    for directory in (BIN, SPARE):
        directory.mkdir(exist_ok=True)
    programs = {program: _launcher(program.name, module) for program, module in _PROGRAMS.items()}
    programs |= {BIN / name: script for name, script in (scripts or {}).items()}
    for program, content in programs.items():
        program.write_text(content, encoding="utf-8")
        program.chmod(0o755)
    PICTURE.write_text(picture, encoding="utf-8")
    inside.RC.write_text(_shellrc(outer), encoding="utf-8")
    void.MARK.touch()


def clear(names: Iterable[str]) -> None:
    """Take the names of namespaces away again, which would keep those alive.

    To be called where `furnish` was.
    """
    for name in names:
        handle = inside.NAMES / name
        with contextlib.suppress(OSError):  # whoever had the shell has done it
            umount(str(handle))
            handle.unlink()


def given(runtime: Adapter | None) -> dict[str, str]:
    """This process's environment, and what the runtime's commands have to be told besides."""
    return {**os.environ, **getattr(runtime, "environment", {})}


def environment(outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of whatever runs in the lab."""
    own = {"PATH": _path(outer), "ENV": str(inside.RC), "XDG_CACHE_HOME": cache()}
    return {**outer, **own, inside.PLACE: "host"}


def _path(outer: Mapping[str, str]) -> str:
    python = os.path.dirname(sys.executable)
    given = outer.get("PATH", "").split(os.pathsep)
    every = (str(BIN), python, *filter(None, given), *_SYSTEM, str(SPARE))
    return os.pathsep.join(dict.fromkeys(every))


def _launcher(name: str, module: str) -> str:
    """A script that runs this very code, installed or not, from whatever directory."""
    root = str(Path(__file__).parents[2])
    source = (
        f"import sys; sys.argv[0] = {name!r}; sys.path.insert(0, {root!r}); "
        f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -c {shlex.quote(source)} "$@"\n'


def _shellrc(outer: Mapping[str, str]) -> str:
    """What an interactive bash or sh reads: the user's own settings, then the lab's.

    The history is the lab's as well: nothing typed here ends up in the user's.
    """
    return f"""\
if [ "${{BASH_VERSION:-}}" ] && [ -r ~/.bashrc ]; then . ~/.bashrc; fi
unset PROMPT_COMMAND
HISTFILE={HOME}/history
PATH={shlex.quote(_path(outer))}
PS1='lab:${inside.PLACE} ${{PWD##*/}} # '
"""
