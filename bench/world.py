"""Time to build and to remove a world: `python -m bench.world [ROUNDS]`.

The rival makes the same namespaces, bridges and veth pairs with one `ip -batch`, as a careful shell
script would. It makes no addresses, no routes, no services and no host process. The rival is
skipped if `ip` is missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace

from bench.timing import Row, alternate, show, timed
from harness.model.topology import Topology
from harness.sandbox import sandbox
from harness.world.build import World, routers

UP_BAR = 0.060


def main() -> int:
    """Measure inside a sandbox and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    downs: list[float] = []

    def ours() -> float:
        began = time.perf_counter()
        world = World.build()
        up = time.perf_counter() - began
        downs.append(timed(world.close))
        return up

    contestants = [("world up", ours)]
    if shutil.which("ip"):
        contestants.append(("ip -batch, bare links", _with_ip))
    rows = alternate(contestants, rounds=rounds)
    rows[0] = replace(rows[0], bar=UP_BAR)
    rows.append(Row("world down", tuple(downs[1:])))
    show("World", rows, against="ip -batch, bare links" if len(contestants) > 1 else None)
    return 0


def _with_ip() -> float:
    script = "\n".join(_batch(Topology()))
    names = [line.split()[2] for line in script.splitlines() if line.startswith("netns add")]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    try:
        taken = timed(
            lambda: subprocess.run(["ip", "-batch", "-"], input=script.encode(), check=True)
        )
        subprocess.run(
            ["ip", "-batch", "-"],
            input="\n".join(f"netns del {name}" for name in names).encode(),
            check=True,
        )
        return taken
    finally:
        subprocess.run(["umount", "-l", "/run"], check=True)


def _batch(topology: Topology) -> list[str]:
    """Return the topology as input lines of `ip -batch`."""
    chain = routers(topology)
    names = ["host", "lan", *chain, "internet", "attacker", "ns1", "ns2"]
    lines = [f"netns add {name}" for name in names]
    lines.append("link add lan0 netns lan type bridge")
    lines += [
        f"link add p{port} netns lan type veth peer name eth0 netns {port}"
        for port in ("host", chain[0], "attacker")
    ]
    lines += [
        f"link add eth1 netns {lower} type veth peer name eth0 netns {upper}"
        for lower, upper in zip(chain, [*chain[1:], "internet"], strict=True)
    ]
    lines.append("link add br0 netns host type bridge")
    lines += [
        f"link add p{port} netns host type veth peer name eth0 netns {port}"
        for port in ("ns1", "ns2")
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
