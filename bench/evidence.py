"""Cost of evidence in a run without failures: `python -m bench.evidence [ROUNDS [SUITE…]]`.

Two pytest runs take turns: one with report and evidence, one with neither. The figures are the
wall-clock time, and the processor time of all processes. Other load on the machine changes the
processor time less.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from bench.timing import Row, alternate, show, timed

BAR = 1.02
"""Bound on the time of a run without failures, with evidence relative to without."""
_WITH, _WITHOUT = "with report and evidence", "with neither"


def main() -> int:
    """Run `pytest` with and without evidence in turn and print two tables."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    suites = sys.argv[2:] or ["suites/modes", "suites/matrix"]
    spent: dict[str, list[float]] = {_WITH: [], _WITHOUT: []}

    def run(name: str, *options: str) -> Callable[[], float]:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *options, *suites]

        def once() -> float:
            before = _processor_time()
            seconds = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
            spent[name].append(_processor_time() - before)
            return seconds

        return once

    rows = alternate(
        [
            (_WITH, run(_WITH)),
            (_WITHOUT, run(_WITHOUT, "--no-report", "--no-evidence")),
        ],
        rounds=rounds,
    )
    times = [Row(name, tuple(figures[1:])) for name, figures in spent.items()]
    for title, table in (("A green run", rows), ("Processor time of the same runs", times)):
        table[0] = replace(table[0], bar=BAR * table[1].median)
        show(title, table, against=_WITHOUT)
    return 0


def _processor_time() -> float:
    """Return the processor time in seconds of all descendants that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
