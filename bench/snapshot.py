"""Cost of the leak guard per test: `python -m bench.snapshot [ROUNDS]`.

The guard takes a snapshot at the end of every test, and at the beginning only if a shared resource
was created since. The containers of the reference plan run during the measurement, as in most
tests. The rival reads the state of the same three namespaces before and after a test, as scripts
do, with `ip`, `sysctl` and `nft`. These commands are started through setns; missing ones are
skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

from bench.timing import Row, alternate, show, timed
from harness.adapters import registry
from harness.model.plan import CAST, HOST, NS1, NS2
from harness.sandbox import sandbox
from harness.testbench.scene import Scene
from harness.world.build import World
from harness.world.leak_guard import LeakGuard

BAR = 0.003
_COMMANDS = (
    "ip -d link",
    "ip address",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip -6 rule",
    "ip neighbour",
    "sysctl -a --pattern ^net",
    "nft list ruleset",
)


def main() -> int:
    """Measure inside a sandbox and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    with World.build() as world:
        runtime = registry.find(registry.DEFAULT)(world.host)
        runtime.start()
        with Scene(world, runtime, CAST), LeakGuard(world) as guard:
            guard.begin()

            def anew() -> float:
                guard.forget()
                return timed(guard.begin)

            rows = alternate(
                [
                    ("after a test: snapshot and comparison", lambda: timed(guard.check)),
                    ("before a test: new snapshot", anew),
                ],
                rounds=rounds,
            )
            rows[0] = replace(rows[0], bar=BAR)
            tools = [command for command in _COMMANDS if shutil.which(command.split()[0])]
            if tools:
                rows.append(
                    Row(f"{len(tools)} commands", (timed(lambda: _with_tools(world, tools)),))
                )
            show("Leak guard around a test", rows, against=rows[0].name)
        runtime.stop()
    return 0


def _with_tools(world: World, commands: list[str]) -> None:
    for name in (HOST, NS1, NS2):
        with world.namespaces[name].entered():
            for command in commands:
                for _ in ("before", "after"):
                    subprocess.run(command.split(), stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main())
