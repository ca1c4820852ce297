"""Time to probe the matrix of the reference plan: `python -m bench.matrix [ROUNDS]`.

The rival probes the ICMP cells of the same matrix as scripts do, with one `ping -c1 -W1` for each
cell. `ping` is started in the source's netns through setns, without the cost of `ip netns exec`.
The rival runs only once, because each cell without a reply takes a second. It is skipped if `ping`
is missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

from bench.timing import Row, alternate, show, timed
from harness.adapters import registry
from harness.model.plan import BY_NAME, CAST, Cell, Outcome, Protocol
from harness.sandbox import sandbox
from harness.testbench.scene import Scene
from harness.world.build import World

BAR = 0.300


def main() -> int:
    """Measure inside a sandbox and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    with World.build() as world:
        runtime = registry.find("mydocker")(world.host)
        runtime.start()
        with Scene(world, runtime, CAST) as scene:
            promised = scene.promised()
            replies = [cell for cell, said in promised.items() if said.outcome is Outcome.REPLY]
            others = [cell for cell in promised if cell not in set(replies)]
            rows = alternate(
                [
                    (f"all {len(promised)} cells", lambda: timed(lambda: scene.observed(promised))),
                    (
                        f"{len(replies)} cells with a reply",
                        lambda: timed(lambda: scene.observed(replies)),
                    ),
                    (f"{len(others)} cells without", lambda: timed(lambda: scene.observed(others))),
                ],
                rounds=rounds,
            )
            rows[0] = replace(rows[0], bar=BAR)
            if shutil.which("ping"):
                rows.append(_pings(scene))
            show("Matrix of the reference plan", rows, against=rows[0].name)
        runtime.stop()
    return 0


def _pings(scene: Scene) -> Row:
    cells = [
        cell for cell in scene.promised().select(protocol=Protocol.ICMP) if cell.target != BY_NAME
    ]

    def all_pings() -> None:
        for cell in cells:
            _ping(scene, cell)

    return Row(f"ping -c1 -W1, {len(cells)} ICMP cells", (timed(all_pings),))


def _ping(scene: Scene, cell: Cell) -> None:
    address = scene.address(cell)
    if address is None:
        return
    with scene.netns(cell.source).open() as space, space.entered():
        subprocess.run(
            ["ping", f"-{cell.family}", "-c1", "-W1", str(address)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


if __name__ == "__main__":
    sys.exit(main())
