"""How tests start a lab."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.programs import Watched, environment, run

NETMODES = [sys.executable, "-m", "harness.cli"]
LAB = [*NETMODES, "lab"]
NO_CAST = [*LAB, "--no-cast"]

SHELLS = [shell for shell in ("/bin/bash", "/bin/dash", "/bin/sh") if os.path.exists(shell)]


def script(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a sh script in a lab without a cast, its errors in its output."""
    return run([*NO_CAST, *arguments, "--", "sh", "-c", f"exec 2>&1\n{source}"])


def at_terminal(argv: Sequence[str], *, shell: str = "/bin/sh", home: str = "/") -> Watched:
    """A program on a terminal of its own, with plain settings."""
    env = environment(SHELL=shell, TERM="dumb", HOME=home, PS1="outer> ")
    return Watched(argv, terminal=True, env=env)
