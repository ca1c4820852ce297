"""Bench of many containers: `python -m bench.scale [CONTAINERS [AT_ONCE [CYCLES]]]`.

The defaults are 200, 50 and 1000.

- CONTAINERS containers run at the same time on one bridge. The bench prints the time of the first
  and last starts, the memory of a pid 1 and the time of a removal.
- AT_ONCE processes start a container at the same moment. All addresses must differ.
- CYCLES starts and removals follow one another. Afterwards the kernel's counters must have their
  old values. Only counters that no other process changes are checked; counters of the whole machine
  are printed.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.timing import timed
from harness.sandbox import sandbox
from linux import rtnetlink_dump
from linux.conntrack import Conntrack
from linux.netlink import Netlink
from linux.nftables import Nft
from runtime.engine import Engine
from runtime.records import ContainerRecord

_FOR_EVER = ("sleep", "1000000")
_SIZES = (200, 50, 1000)
_STEP = 10
"""Number of first and of last starts whose median is printed."""
_SETTLED = 10.0
"""Seconds within which the kernel must remove the namespaces."""


def main() -> int:
    """Measure inside a sandbox; return 1 for a leak or a duplicate address."""
    given = [int(word) for word in sys.argv[1:]]
    containers, at_once, cycles = (*given, *_SIZES[len(given) :])
    return sandbox.run(lambda: _measure(containers, at_once, cycles))


def _measure(containers: int, at_once: int, cycles: int) -> int:
    engine = Engine()
    engine.run("base", _FOR_EVER, name="first")
    _many(engine, containers)
    good = _race(engine, at_once)
    good = _turn_over(engine, cycles) and good
    engine.teardown()
    return 0 if good else 1


def _many(engine: Engine, number: int) -> None:
    found: list[ContainerRecord] = []
    seconds = [timed(lambda: found.append(engine.run("base", _FOR_EVER))) for _ in range(number)]
    first, last = (statistics.median(part) for part in (seconds[:_STEP], seconds[-_STEP:]))
    print(
        f"{number} containers on one bridge: started in {sum(seconds):.1f} s "
        f"(median of the first {_STEP}: {first * 1000:.1f} ms, of the last: {last * 1000:.1f} ms)"
    )
    private = [_private(item.state.pid) for item in found]
    print(f"  private memory of a pid 1: {statistics.median(private):.0f} KiB (median)")
    removed = timed(lambda: _remove(engine, found))
    print(f"  removed in {removed:.1f} s, {removed / number * 1000:.1f} ms each")


def _private(pid: int) -> int:
    """Return the private memory of a process in KiB: proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _race(engine: Engine, number: int) -> bool:
    gate, opener = os.pipe()
    racers = []
    for _ in range(number):
        pid = os.fork()
        if not pid:
            try:
                os.close(opener)
                os.read(gate, 1)
                Engine().run("base", _FOR_EVER)
                os._exit(0)
            finally:
                os._exit(1)
        racers.append(pid)
    os.close(gate)
    began = time.perf_counter()
    os.close(opener)
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in racers)
    seconds = time.perf_counter() - began
    found = [item for item in engine.containers() if item.name != "first"]
    addresses = {item.state.endpoints[0].address for item in found}
    print(
        f"{number} starts at the same moment: {failed} failed, {seconds:.1f} s, "
        f"{len(addresses)} different addresses"
    )
    _remove(engine, found)
    return len(addresses) == number


def _remove(engine: Engine, found: Iterable[ContainerRecord]) -> None:
    for item in found:
        engine.remove(item.id, force=True)


def _turn_over(engine: Engine, number: int) -> bool:
    def cycles(times: int) -> None:
        for _ in range(times):
            engine.remove(engine.run("base", _FOR_EVER).id, force=True)

    cycles(1)
    before, machine = _counters(), _machine()
    seconds = timed(lambda: cycles(number))
    deadline = time.monotonic() + _SETTLED
    while (grown := _grown(before, _counters())) and time.monotonic() < deadline:
        os.sched_yield()
    print(f"{number} starts and removals: {seconds / number * 1000:.1f} ms each")
    print(f"  counters that grew: {', '.join(grown) or 'none'} (of {', '.join(before)})")
    for name, value in _machine().items():
        print(f"  whole machine, {name}: {machine[name]} before, {value} after")
    return not grown


def _grown(before: dict[str, int], after: dict[str, int]) -> Sequence[str]:
    return [
        f"{name} {before[name]} → {after[name]}" for name in before if after[name] > before[name]
    ]


def _counters() -> dict[str, int]:
    """Return the counters that only this bench changes."""
    with Netlink() as host, Conntrack() as conntrack, Nft() as nft:
        return {
            "links": len(rtnetlink_dump.links(host)),
            "addresses": len(rtnetlink_dump.addresses(host)),
            "routes": len(rtnetlink_dump.routes(host)),
            "neighbours": len(list(rtnetlink_dump.neighbours(host))),
            "flows": conntrack.count(),
            "rules": sum(len(nft.rules(table)) for table in nft.tables()),
            "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
            "processes": sum(name.isdigit() for name in os.listdir("/proc")),
            "namespaces": len({_namespaces(name) for name in os.listdir("/proc")}),
            "own descriptors": len(os.listdir("/proc/self/fd")),
            "files of state": sum(1 for _ in Path("/run/mydocker").rglob("*")),
        }


def _namespaces(pid: str) -> tuple[str, ...]:
    try:
        return tuple(os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid"))
    except OSError:
        return ()


def _machine() -> dict[str, int]:
    """Return the counters that other processes change too; they are printed, not checked."""
    found = {"open files": int(Path("/proc/sys/fs/file-nr").read_text().split()[0])}
    for line in Path("/proc/cgroups").read_text().splitlines()[1:2]:
        found["cgroups of the first hierarchy"] = int(line.split()[2])
    try:
        slabs = Path("/proc/slabinfo").read_text().splitlines()[2:]
    except OSError:  # readable by real root only
        return found
    wanted = ("net_namespace", "mnt_cache", "pid_namespace", "nf_conntrack")
    for name, active in (line.split()[:2] for line in slabs):
        if name in wanted:
            found[f"slab {name}"] = int(active)
    return found


if __name__ == "__main__":
    sys.exit(main())
