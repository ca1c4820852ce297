"""Invented runtimes for tests: a wrapper of mydocker with optional failures, and a bare runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness.adapters import registry
from harness.adapters.bare.protocol import StartRequest
from harness.adapters.protocol import AdapterFactory
from tests.support.programs import ROOT

# Its verbs are `launch`, `destroy` and `forget` for run, rm and network rm.
_ACMECTL: Final = """\
#!/bin/sh
verb=$1
shift
case $verb in
launch) set -- run -d "$@" ;;
destroy) set -- rm -f "$@" ;;
forget) set -- network rm "$@" ;;
*) set -- "$verb" "$@" ;;
esac
{trick}
export PYTHONPATH={root}
exec {python} -m runtime "$@"
"""
_DESCRIPTION: Final = """\
[runtime]
like = "mydocker-cli"
command = ["{command}"]
timeout = {timeout}
version = "7.1"
[words]
run = ["launch"]
remove = ["destroy"]
network_remove = ["forget"]
{more}
"""


def acme(folder: Path, *, trick: str = "", more: str = "", timeout: int = 30) -> AdapterFactory:
    """Write a program and its description to a folder, and return the adapter factory.

    `trick` is shell text that the program runs before it calls mydocker. `more` is appended to the
    description.
    """
    command = folder / "acmectl"
    command.write_text(_ACMECTL.format(trick=trick, root=ROOT, python=sys.executable))
    command.chmod(0o755)
    return registry.find(describe(folder, command=str(command), more=more, timeout=timeout))


def describe(folder: Path, *, command: str, more: str = "", timeout: int = 30) -> str:
    """Write a description and return its path."""
    path = folder / "acme.toml"
    path.write_text(_DESCRIPTION.format(command=command, more=more, timeout=timeout))
    return str(path)


class Unasked:
    """A bare runtime that cannot start a container, and has none to remove."""

    def __init__(self, _: object) -> None:
        pass

    def start(self, request: StartRequest) -> int:
        """Fail."""
        raise AssertionError(request)

    def forget(self, name: str, home: Path) -> None:
        """Do nothing."""

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:
        """Fail."""
        raise AssertionError(name, pid)
