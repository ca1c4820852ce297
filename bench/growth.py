"""Growth of costs with the containers on one bridge: `python -m bench.growth [CONTAINERS…]`.

The default sizes are 10, 30, 100, 300 and 1000. For each size the bench measures: all starts, one
after the other; a full mesh of probes; all removals; and the private memory of a container's pid 1.
The mesh has every ordered pair of containers and each container's own address, and no probe may be
lost.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import mesh
from bench.cells import members
from bench.timing import Row, show, timed
from harness.adapters import registry
from harness.adapters.protocol import Adapter
from harness.model.plan import HOST
from harness.sandbox import sandbox
from harness.testbench.scene import Scene
from harness.world.build import World

SIZES = (10, 30, 100, 300, 1000)
STARTED, ASKED, REMOVED, KEPT = "started", "full mesh", "removed", "memory of a pid 1"
BARS = {STARTED: 15.0, ASKED: 60.0, REMOVED: 30.0, KEPT: 2.0}
"""Bounds for a thousand containers, in seconds; the bound for `KEPT` is in MB."""
_AT = 1000


def main() -> int:
    """Measure all sizes inside a sandbox and print a table."""
    sizes = tuple(int(word) for word in sys.argv[1:]) or SIZES
    return sandbox.run(lambda: _measure(sizes))


def _measure(sizes: tuple[int, ...]) -> int:
    rows: list[Row] = []
    with World.build() as world:
        runtime = registry.find(registry.DEFAULT)(world.host)
        runtime.start()
        for size in sizes:
            rows += _grown(world, runtime, size)
        runtime.stop()
    show("Growth: containers on one bridge", rows)
    return 0


def _grown(world: World, runtime: Adapter, size: int) -> list[Row]:
    scene = Scene(world, runtime)
    try:
        started = timed(lambda: [scene.container(f"c{number}") for number in range(size)])
        with ExitStack() as stack:
            found = members(scene, stack)
            host = stack.enter_context(scene.netns(HOST).open())
            bridge = runtime.network_facts("bridge").interface or ""
            control = world.namespaces["lan"]

            def ask() -> None:
                seen = mesh.ask(found, host=host, bridge=bridge, control=control)
                lost = size * size - seen.kept(64)
                assert not lost, f"{lost} of {size * size} cells have no reply"

            asked = timed(ask)
        pids = [scene[f"c{number}"].started.pid for number in range(size)]
        kept = statistics.median(_private(world, pid) for pid in pids)
    finally:
        removed = timed(scene.close)
    figures = {STARTED: started, ASKED: asked, REMOVED: removed, KEPT: kept}
    return [
        Row(
            f"{size} {what}",
            (figure,),
            bar=BARS[what] if size == _AT else None,
            unit="MB" if what == KEPT else "ms",
        )
        for what, figure in figures.items()
    ]


def _private(world: World, pid: int) -> float:
    """Return the private memory of a process in MB: proc_pid_smaps(5)."""
    where = Path(f"{world.host.proc}/{pid}/smaps_rollup")
    lines = where.read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    sys.exit(main())
