"""Probed cells per second: `python -m bench.cells [ROUNDS [CONTAINERS]]`.

A cell is an ordered pair of containers. The contestants probe all cells of one bridge by ICMP. The
rivals are:

- a C program with the same witnesses and the same rule for a missing reply
  (`bench/reference/prober.c`, built if a compiler is installed);
- `fping`, one process in each container's netns, all in parallel;
- `ping`, with one process for each of a sample of the cells.

fping and ping do not check which container replied. All neighbour entries exist beforehand. The C
program and the mesh have open sockets, and their second pass is measured. The mesh also probes each
container's own address, which is not counted as a cell. A mesh whose sockets are opened for a
single pass has its own table.

Then isolated bridge ports cut off half of the pairs. The last table compares the cost of a cell
without a reply: in netmodes, in the C program, and in `ping -W1`, which waits a second for each
cell.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench import mesh
from bench.mesh import Member, Mesh, Prober
from bench.timing import Row, alternate, show, timed
from harness.adapters import registry
from harness.model.plan import HOST, Cell, Outcome, Protocol
from harness.sandbox import sandbox
from harness.testbench.scene import Scene
from harness.world.build import World
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS

OF_C = 0.8
"""Lower bound on the mesh's rate, as a share of the C program's rate."""
OF_FPING = 4
"""Lower bound on the mesh's rate, as a multiple of fping's rate."""
NEGATIVE_BAR = 0.1
"""Bound in seconds on a matrix in which half of the cells have no reply."""
_SOME = 20
"""Number of cells that `ping` probes."""
_RATE = "cells/s"
_EACH_FPING = "fping, one per namespace"


def main() -> int:
    """Measure inside a sandbox and print the tables."""
    given = [int(word) for word in sys.argv[1:]]
    rounds, containers = (*given, *(15, 30)[len(given) :])
    return sandbox.run(lambda: _measure(rounds, containers))


class Ground(NamedTuple):
    """The containers on one bridge, and the host's namespace."""

    scene: Scene
    members: list[Member]
    host: NetNS
    prober: str | None
    """Path of the C program; `None` without a compiler."""

    @property
    def cells(self) -> list[Cell]:
        """All cells: every ordered pair of containers."""
        names = [member.name for member in self.members]
        return [
            Cell(source, target, Protocol.ICMP, 4)
            for source in names
            for target in names
            if source != target
        ]


@contextmanager
def ground(containers: int) -> Iterator[Ground]:
    """Yield a world with this number of containers on one bridge."""
    with ExitStack() as stack:
        world = stack.enter_context(World.build())
        runtime = registry.find(registry.DEFAULT)(world.host)
        runtime.start()
        stack.callback(runtime.stop)
        scene = stack.enter_context(Scene(world, runtime))
        for number in range(containers):
            scene.container(f"c{number}")
        host = stack.enter_context(scene.netns(HOST).open())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="netmodes-bench-"))
        yield Ground(scene, members(scene, stack), host, build("prober", scratch))


def members(scene: Scene, stack: ExitStack) -> list[Member]:
    """Return the containers of a scene as members of a mesh."""
    found = []
    for item in scene.plan.containers:
        made = scene[item.name]
        address = made.started.endpoints[0].address
        assert address is not None
        found.append(Member(item.name, stack.enter_context(made.net.open()), address.ip))
    return found


def build(name: str, scratch: str) -> str | None:
    """Compile a reference program and return its path; `None` without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = f"{scratch}/{name}"
    source = Path(__file__).parent / "reference" / f"{name}.c"
    subprocess.run([compiler, "-O2", "-o", program, str(source)], check=True)
    return program


def _measure(rounds: int, containers: int) -> int:
    with ground(containers) as found:
        _positives(found, rounds)
        _negatives(found, rounds)
    return 0


def _positives(found: Ground, rounds: int) -> None:
    cells, control = found.cells, found.scene.world.namespaces["lan"]
    asked, bridge = len(found.members) ** 2, _bridge(found.scene)

    def complete(ask: Callable[[], Mesh]) -> None:
        lost = asked - ask().kept(64)
        assert not lost, f"{lost} cells have no reply"

    def once() -> Mesh:
        return mesh.ask(found.members, host=found.host, bridge=bridge, control=control)

    with Prober(found.members, host=found.host, bridge=bridge, control=control) as kept:

        def again() -> float:
            complete(kept.ask)
            return len(cells) / timed(lambda: complete(kept.ask))

        contestants: list[tuple[str, Callable[[], float]]] = [
            ("netmodes, the mesh", again),
            ("netmodes, the matrix", lambda: len(cells) / timed(lambda: _all_reply(found, cells))),
        ]
        contestants += _rivals(found)
        rows = alternate(contestants, rounds=rounds, unit=_RATE)
    by_name = {row.name: row.median for row in rows}
    bars = [OF_C * by_name.get("C", 0), OF_FPING * by_name.get(_EACH_FPING, 0)]
    rows[0] = replace(rows[0], bar=max(bars) or None)
    title = f"{len(cells)} cells with a reply, {len(found.members)} containers"
    show(title, rows, against="C" if found.prober else rows[0].name)
    first = [("netmodes, the mesh", lambda: len(cells) / timed(lambda: complete(once)))]
    show("Mesh, opened and closed for one pass", alternate(first, rounds=rounds, unit=_RATE))


def _rivals(found: Ground) -> Iterator[tuple[str, Callable[[], float]]]:
    cells = found.cells
    if found.prober:
        yield "C", lambda: _in_c(found, answered=len(cells), passes=2)
    if shutil.which("fping"):
        yield _EACH_FPING, lambda: len(cells) / _fping(found)
    if shutil.which("ping"):
        some = cells[:_SOME]
        yield "ping, cell by cell", lambda: len(some) / timed(lambda: _ping(found, some))


def _negatives(found: Ground, rounds: int) -> None:
    cut = _cut_half(found)
    cells = found.cells
    silent = [cell for cell in cells if cell.source in cut and cell.target in cut]

    def by_matrix() -> None:
        seen = found.scene.observed(cells)
        lost = {cell for cell in cells if seen[cell].outcome is not Outcome.REPLY}
        assert lost == set(silent), f"{len(lost)} cells have no reply, expected {len(silent)}"

    contestants: list[tuple[str, Callable[[], float]]] = [
        ("netmodes, the matrix", lambda: timed(by_matrix))
    ]
    if found.prober:
        answered = len(cells) - len(silent)
        contestants.append(("C", lambda: len(cells) / _in_c(found, answered=answered)))
    rows = alternate(contestants, rounds=rounds)
    rows[0] = replace(rows[0], bar=NEGATIVE_BAR)
    if shutil.which("ping") and silent:
        one = timed(lambda: _ping(found, silent[:1], replies=False))
        rows.append(Row("ping -W1, one cell without a reply", (one,)))
    title = f"{len(cells)} cells, {len(silent)} of them without a reply"
    show(title, rows, against="C" if found.prober else rows[0].name)


def _bridge(scene: Scene) -> str:
    name = scene.runtime.network_facts("bridge").interface
    assert name is not None
    return name


def _all_reply(found: Ground, cells: Sequence[Cell]) -> None:
    seen = found.scene.observed(cells)
    lost = [cell for cell in cells if seen[cell].outcome is not Outcome.REPLY]
    assert not lost, f"{len(lost)} cells have no reply, the first is {lost[0]}"


def _cut_half(found: Ground) -> set[str]:
    """Isolate bridge ports until about half of the pairs are cut off; return these containers."""
    total, number = len(found.members), 0
    while 2 * number * (number - 1) < total * (total - 1):
        number += 1
    cut = {member.name for member in found.members[:number]}
    with Netlink(found.host) as netlink:
        for name in cut:
            port = found.scene[name].net.links()["eth0"].peer
            assert port is not None
            netlink.send([rtnetlink.isolate_port(port)])
    return cut


def _in_c(found: Ground, *, answered: int, passes: int = 1) -> float:
    """Return the cells per second of the C program's last pass, measured by its own clock."""
    control = found.scene.world.namespaces["lan"]
    spaces = (control, found.host, *(member.space for member in found.members))
    paths = [f"/proc/self/fd/{space.fd}" for space in spaces]
    places = "".join(
        f"{path} {member.address}\n" for path, member in zip(paths[2:], found.members, strict=True)
    )
    said = subprocess.run(
        [str(found.prober), *paths[:2], str(passes)],
        input=places.encode(),
        stdout=subprocess.PIPE,
        check=True,
        pass_fds=[space.fd for space in spaces],
    )
    cells, got, seconds = said.stdout.split()
    assert int(got) == answered, f"C has {int(got)} replies, expected {answered}"
    return int(cells) / float(seconds)


def _fping(found: Ground) -> float:
    def once() -> None:
        running = []
        for member in found.members:
            others = [str(other.address) for other in found.members if other is not member]
            command = ["fping", "-q", "-c1", "-r0", "-i1", *others]
            with member.space.entered():
                running.append(
                    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                )
        assert [process.wait() for process in running] == [0] * len(running)

    return timed(once)


def _ping(found: Ground, cells: Sequence[Cell], *, replies: bool = True) -> None:
    by_name = {member.name: member for member in found.members}
    for cell in cells:
        address = str(by_name[cell.target].address)
        with by_name[cell.source].space.entered():
            done = subprocess.run(
                ["ping", "-n", "-q", "-c1", "-W1", address],
                stdout=subprocess.DEVNULL,
                check=False,
            )
        assert (done.returncode == 0) == replies


if __name__ == "__main__":
    sys.exit(main())
