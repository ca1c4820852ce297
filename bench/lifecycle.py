"""What a container's life costs, step by step: `python -m bench.lifecycle [ROUNDS]`.

Start, exec of `true`, and removal, in every mode, of mydocker as a library and over its command
line, of podman and docker, and of crun and runc with their network wired by hand, which is the
least that it takes. Each is in a host of its own with the same image and driven by its adapter,
as the suites drive it. Measured is the one command or call that does it, with what it waits for:
what the adapter asks afterwards, how it came out, is left out. A rival that cannot be tried
here is left out too, and named.

crun and runc are the commands, and what any user of them has to do besides: a root to mount, a
config.json to write, for a bridge a namespace, a veth pair, addresses and routes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from bench import rivals
from bench.timing import Row, alternate, show
from harness import sandbox
from harness.adapters.protocol import Adapter, Completed
from harness.model import Bridge, ContainerSpec, Host, Joined, Mode, Nothing

RUNTIMES: Final = ("mydocker", "mydocker-cli", "crun-by-hand", "runc-by-hand", "podman", "docker")
MODES: Final[dict[str, Mode]] = {
    "bridge": Bridge(),
    "none": Nothing(),
    "host": Host(),
    "container:first": Joined("first"),
}
BAR: Final = "crun-by-hand"
"""Whose start on a bridge may not be faster than the library's."""
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
            _compare(title, mode, adapters, rounds)
    return 0


def _compare(title: str, mode: Mode, adapters: dict[str, Adapter], rounds: int) -> None:
    spent: dict[str, dict[str, list[float]]] = {"exec": {}, "removal": {}}

    def life(name: str, adapter: Adapter) -> Callable[[], float]:
        def once() -> float:
            started = _first(adapter, lambda: adapter.run(ContainerSpec(_MEASURED, mode)))
            executed = adapter.exec(_MEASURED, ["true"])
            assert not executed.returncode, executed
            removed = _first(adapter, lambda: adapter.remove(_MEASURED))
            spent["exec"].setdefault(name, []).append(executed.seconds)
            spent["removal"].setdefault(name, []).append(removed)
            return started

        return once

    rows = alternate(
        [(name, life(name, adapter)) for name, adapter in adapters.items()], rounds=rounds
    )
    bars = [row.median for row in rows if row.name == BAR and isinstance(mode, Bridge)]
    show(
        f"Start, {title}", [replace(rows[0], bar=min(bars, default=None)), *rows[1:]], against=_OWN
    )
    for what, figures in spent.items():
        # The first life of each does not count, as in `rows`.
        show(
            f"{what.capitalize()}, {title}",
            [Row(*item) for item in _counted(figures)],
            against=_OWN,
        )


def _counted(figures: dict[str, list[float]]) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, tuple(own[1:])) for name, own in figures.items()]


def _first(adapter: Any, verb: Callable[[], object]) -> float:
    """Seconds of the first command, or call, by which the adapter does what it is asked for."""
    began = time.time()
    verb()
    told: Sequence[Completed] = list(adapter.commands)
    return next(item.seconds for item in told if item.at >= began)


if __name__ == "__main__":
    sys.exit(main())
