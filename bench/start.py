"""How fast a container starts: `python -m bench.start [ROUNDS]`.

Measured is the library: from the call to the return, when the network is in
place and the command is being executed. The rival is the bare minimum that any
machine has: `unshare` with the same namespaces and nothing in them, no file
system, no network, as a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from bench.timing import alternate, show, timed
from harness import sandbox
from runtime.engine import Engine

BAR = 0.012
_UNSHARE = ("unshare", "--fork", "--pid", "--net", "--mount", "--uts", "--ipc", "--cgroup", "true")


def main() -> int:
    """Measure inside a sandbox and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    engine = Engine()
    engine.run("base", ["sleep", "1000"], name="first")

    def start(network: str) -> Callable[[], float]:
        def once() -> float:
            began: list[str] = []
            seconds = timed(
                lambda: began.append(engine.run("base", ["sleep", "1000"], network=network).id)
            )
            engine.remove(began[0], force=True)
            return seconds

        return once

    rows = alternate(
        [
            *((f"mydocker {mode}", start(mode)) for mode in ("bridge", "none", "host")),
            ("mydocker container:first", start("container:first")),
            ("unshare … true", lambda: timed(lambda: subprocess.run(_UNSHARE, check=True))),
        ],
        rounds=rounds,
    )
    rows[0] = replace(rows[0], bar=BAR)
    show("Start of a container, library call to running command", rows, against="unshare … true")
    engine.teardown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
