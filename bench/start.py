"""Time of a container's start: `python -m bench.start [ROUNDS]`.

The figure is the time that the library's function takes. When it returns, the network is complete
and the command executes. One rival is a C program with the same system calls
(`bench/reference/start.c`, built if a compiler is installed). The other rival is `unshare` with the
same namespaces, without file system and network. That is the minimum on any machine.

The second table has the processor time of the same starts, summed over all processes except the
container's command. Other load on the machine changes that time less. The third table has the
number of memory pages that pid 1 touches for the first time, which other load does not change. The
first access to a page takes longer than a system call.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.quiet import taken_apart
from bench.timing import Row, alternate, show, timed
from harness.sandbox import sandbox
from linux.netns import NetNS
from linux.proc import ProcessStat
from linux.syscalls import in_user_namespace
from runtime.engine import Engine
from runtime.records import ContainerRecord

BAR = 3.0
"""Bound on the time of a start on a bridge, as a multiple of the C program's time."""
_C = "C, the same system calls"
_UNSHARE = ("unshare", "--fork", "--pid", "--net", "--mount", "--uts", "--ipc", "--cgroup", "true")


def main() -> int:
    """Measure inside a sandbox and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    return sandbox.run(lambda: _measure(rounds))


def _measure(rounds: int) -> int:
    with tempfile.TemporaryDirectory(prefix="netmodes-bench-", dir="/run") as scratch:
        return _compare(rounds, _build(scratch), scratch)


def _build(scratch: str) -> str | None:
    """Compile the reference program and return its path; `None` without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = f"{scratch}/start"
    source = Path(__file__).parent / "reference" / "start.c"
    subprocess.run([compiler, "-O2", "-o", program, str(source)], check=True)
    return program


def _compare(rounds: int, reference: str | None, scratch: str) -> int:
    engine = Engine()
    engine.run("base", ["sleep", "1000"], name="first")

    spent: dict[str, list[float]] = {}
    touched: dict[str, list[float]] = {}

    def start(network: str) -> Callable[[], float]:
        def once() -> float:
            began: list[ContainerRecord] = []
            before = _own_time()
            seconds = timed(
                lambda: began.append(engine.run("base", ["sleep", "1000"], network=network))
            )
            after = _own_time()
            own = after - before + _processor_time(began[0].state.pid)
            spent.setdefault(f"mydocker {network}", []).append(own)
            pages = ProcessStat.of(f"/proc/{began[0].state.pid}").faults
            touched.setdefault(f"mydocker {network}", []).append(pages)
            engine.remove(began[0].id, force=True)
            return seconds

        return once

    layer = engine.images.get("base").layers[0]
    turns = iter(range(rounds + 2))

    def in_c() -> float:
        room = f"{scratch}/{next(turns)}"
        os.mkdir(room)
        command = [str(reference), layer, room, "1"]
        extra = {"REFERENCE_USERXATTR": "1"} if in_user_namespace() else {}
        with NetNS.new() as space, space.entered():  # each start makes a bridge
            said = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, env={**os.environ, **extra}
            )
        seconds, own = (float(word) / 1000 for word in said.stdout.split())
        spent.setdefault(_C, []).append(own)
        return seconds

    rivals = [(_C, in_c)] if reference else []
    rows = alternate(
        [
            *rivals,
            *((f"mydocker {mode}", start(mode)) for mode in ("bridge", "none", "host")),
            ("mydocker container:first", start("container:first")),
            ("unshare … true", lambda: timed(lambda: subprocess.run(_UNSHARE, check=True))),
        ],
        rounds=rounds,
        before=taken_apart,
    )
    if reference:
        bar = BAR * rows[0].median
        rows = [replace(row, bar=bar) if row.name == "mydocker bridge" else row for row in rows]
    show("Start of a container, library call to running command", rows, against=rows[0].name)
    times = [Row(name, tuple(own[1:])) for name, own in spent.items()]
    show("Processor time of the same starts", times, against=times[0].name)
    pages = [Row(name, tuple(own[1:]), unit="pages") for name, own in touched.items()]
    show("Pages that pid 1 touches for the first time", pages)
    engine.teardown()
    return 0


def _own_time() -> float:
    """Return the processor time in seconds of this process and of its children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


def _processor_time(pid: int) -> float:
    """Return the processor time of a process in seconds: proc_pid_schedstat(5)."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


if __name__ == "__main__":
    sys.exit(main())
