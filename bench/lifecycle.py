"""Time of each step of a container's lifecycle: `python -m bench.lifecycle [ROUNDS]`.

The steps are start, exec of `true` and removal, in every mode. The contestants are mydocker as a
library, mydocker by its command line, podman, docker, crun and runc. The adapter makes the networks
of crun and runc. Each contestant has its own host and the same image, and its adapter drives it as
in the suites. Only the command or function itself is measured, not later queries of the adapter.
The output names each runtime that is skipped.

The figures of crun and runc include the work that every user of them has: to mount a root, to write
config.json, and on a bridge to make a netns, an address from host-local, a veth pair and routes.
The bound on the library's start on a bridge is therefore crun's start in mode none, which makes no
network. Commands are timed in their host. The library, crun and runc start and remove containers
through a function that is executed in the host. This adds some tenths of a millisecond.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final, cast

from bench import rivals
from bench.quiet import taken_apart
from bench.timing import Row, alternate, show
from harness.adapters.protocol import Adapter
from harness.model.plan import Bridge, ContainerSpec, Host, Joined, Mode, Nothing
from harness.sandbox import sandbox
from harness.world.process import CompletedCommand

RUNTIMES: Final = ("mydocker", "mydocker-cli", "crun-by-hand", "runc-by-hand", "podman", "docker")
MODES: Final[dict[str, Mode]] = {
    "none": Nothing(),
    "bridge": Bridge(),
    "host": Host(),
    "container:first": Joined("first"),
}
BAR: Final = "crun-by-hand"
"""The runtime whose start in mode none bounds the library's start on a bridge."""
_UNWIRED: Final = f"{BAR}, in mode none"
_OWN, _MEASURED, _FIRST = "mydocker", "measured", "first"


def main() -> int:
    """Measure inside a sandbox and print a table for each step and mode."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    with ExitStack() as stack:
        adapters = {
            name: stack.enter_context(rivals.up(factory))[1]
            for name, factory in rivals.there(RUNTIMES)
        }
        for adapter in adapters.values():
            adapter.run(ContainerSpec(_FIRST))
        for title, mode in MODES.items():
            lives = {name: Life(adapter, mode) for name, adapter in adapters.items()}
            if isinstance(mode, Bridge) and BAR in adapters:
                lives[_UNWIRED] = Life(adapters[BAR], Nothing())
            _compare(title, lives, rounds)
    return 0


class Life:
    """The lifecycle of a container in one mode of one runtime, run repeatedly."""

    def __init__(self, adapter: Adapter, mode: Mode) -> None:
        self._adapter, self._spec = adapter, ContainerSpec(_MEASURED, mode)
        self.seconds: dict[str, list[float]] = {"exec": [], "removal": []}
        """Seconds of every exec and removal, warm-up rounds included."""

    def __call__(self) -> float:
        """Run the lifecycle once, and return the duration of the start in seconds."""
        started = self._first(lambda: self._adapter.run(self._spec))
        executed = self._adapter.exec(_MEASURED, ["true"])
        assert not executed.returncode, executed
        self.seconds["exec"].append(executed.seconds)
        self.seconds["removal"].append(self._first(lambda: self._adapter.remove(_MEASURED)))
        return started

    def _first(self, verb: Callable[[], object]) -> float:
        """Return the duration in seconds of the first command or request of a step."""
        began = time.time()
        verb()
        told: Sequence[CompletedCommand] = list(cast("Any", self._adapter).commands)
        return next(item.seconds for item in told if item.at >= began)


def _compare(title: str, lives: dict[str, Life], rounds: int) -> None:
    rows = alternate(list(lives.items()), rounds=rounds, before=taken_apart)
    bar = next((row.median for row in rows if row.name == _UNWIRED), None)
    own = replace(rows[0], bar=bar)
    show(f"Start, {title}", [own, *rows[1:]], against=_OWN)
    for step in ("exec", "removal"):
        after = [Row(name, tuple(life.seconds[step][-rounds:])) for name, life in lives.items()]
        show(f"{step.capitalize()}, {title}", after, against=_OWN)


if __name__ == "__main__":
    sys.exit(main())
