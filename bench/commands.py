"""Time of whole commands, as a user types them: `python -m bench.commands [ROUNDS]`.

mydocker, podman and docker execute `run --rm base true` in every mode, and `exec` of `true` in a
running container. Each runtime has its own host and the same image. The whole process is measured
in that host, including the start of the interpreter. A rival is skipped if it is not installed, or
if an ordinary user runs the bench. mydocker's modules are compiled to bytecode beforehand, as an
installer does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.rivals import there, up
from bench.timing import Row, alternate, show
from harness.adapters.docker_cli.adapter import environment
from harness.adapters.docker_cli.spec import CliSpec
from harness.adapters.protocol import AdapterFactory, HostHandle
from harness.sandbox import sandbox
from harness.world.build import World

MODES = ("bridge", "none", "host", "container:first")
BARS = {"podman": 0.75, "docker": 0.4}
"""Bounds on mydocker's time, as shares of a rival's time."""
_MYDOCKER = (
    sys.executable,
    "-c",
    "import sys; from runtime.__main__ import main; sys.exit(main())",
)
"""The command, as an installer writes it."""
_PACKAGES = str(Path(__file__).parents[1])


class Rival(NamedTuple):
    """A runtime in its own host, with its command and environment."""

    name: str
    host: HostHandle
    command: tuple[str, ...]
    env: dict[str, str]

    def seconds(self, *words: str) -> float:
        """Return the duration of one command in seconds."""
        return self.host.call(_timed, (*self.command, *words), self.env)


def main() -> int:
    """Measure inside a sandbox and print one table for each kind of command."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    with ExitStack() as stack:
        rivals = [stack.enter_context(_mydocker())]
        for name, factory in there(BARS):
            rivals.append(stack.enter_context(_rival(name, factory)))
        for rival in rivals:
            rival.seconds("run", "-d", "--name", "first", "base", "sleep", "100000")
        for mode in MODES:
            _compare(f"run --rm --network {mode}", rivals, rounds, _running(mode))
        _compare("exec", rivals, rounds, ("exec", "first", "true"))
    return 0


def _running(mode: str) -> tuple[str, ...]:
    # The bridge is every runtime's default, so a user omits it.
    network = () if mode == "bridge" else ("--network", mode)
    return ("run", "--rm", *network, "base", "true")


def _compare(what: str, rivals: list[Rival], rounds: int, words: tuple[str, ...]) -> None:
    def once(rival: Rival) -> Callable[[], float]:
        return lambda: rival.seconds(*words)

    rows = alternate([(rival.name, once(rival)) for rival in rivals], rounds=rounds)
    bars = [BARS[row.name] * row.median for row in rows if row.name in BARS]
    own: Row = replace(rows[0], bar=min(bars)) if bars and what != "exec" else rows[0]
    show(what, [own, *rows[1:]], against=rows[-1].name)


@contextmanager
def _mydocker() -> Iterator[Rival]:
    own = {
        "PYTHONPATH": _PACKAGES,
        "PYTHONPYCACHEPREFIX": "/run/compiled",
        "PYTHONDONTWRITEBYTECODE": "",
    }
    with World.build() as world:
        rival = Rival("mydocker", world.host, _MYDOCKER, own)
        rival.seconds("run", "--rm", "base", "true")
        yield rival
        rival.seconds("system", "reset")


@contextmanager
def _rival(name: str, factory: AdapterFactory) -> Iterator[Rival]:
    assert isinstance(factory, CliSpec)
    with up(factory) as (world, _):
        yield Rival(name, world.host, factory.command, environment(factory))


def _timed(argv: tuple[str, ...], env: dict[str, str]) -> float:
    """Execute a command in the host and return its duration in seconds."""
    own = {**os.environ, **env}
    began = time.perf_counter()
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=own)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} exited with {done.returncode}: {done.stderr}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
