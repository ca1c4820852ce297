"""Helpers that start a lab in a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.programs import Watched, environment, run

NETMODES = [sys.executable, "-m", "harness.cli.main"]
LAB = [*NETMODES, "lab"]
NO_CAST = [*LAB, "--no-cast"]

SHELLS = [shell for shell in ("/bin/bash", "/bin/dash", "/bin/sh") if os.path.exists(shell)]
OWN_TOOLS = "PATH=/run/netmodes/spare:$PATH"
TOOLS = {"the lab's own ip": OWN_TOOLS}
"""Programs `ip` to test, each with the shell text that puts it first on PATH."""
if shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin"):
    TOOLS["the machine's ip"] = ":"


def script(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a sh script in a lab without containers; standard error goes to standard output."""
    return run([*NO_CAST, *arguments, "--", "sh", "-c", f"exec 2>&1\n{source}"])


def at_terminal(
    argv: Sequence[str], *, shell: str = "/bin/sh", home: Path | None = None
) -> Watched:
    """Start a program on a new terminal, with default shell settings and the user's image cache."""
    env = environment(
        SHELL=shell,
        TERM="dumb",
        HOME=str(home or Path.home()),
        XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        PS1="outer> ",
    )
    return Watched(argv, terminal=True, env=env)
