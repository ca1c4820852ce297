"""Peak memory of a run: `python -m bench.memory [SUITE…]`.

The bench reads the peak resident memory of the controller and of both workers (VmHWM,
proc_pid_status(5)). The rival is a pytest run without the plugin, with two workers and one empty
test. Without the argument SUITE, all suites run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.timing import Row, show

_TOLD = "NETMODES_BENCH_MEMORY"
_ROOT = Path(__file__).parents[1]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Append this process's peak memory to the results; a hook of the measured pytest run."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    who = "worker" if hasattr(session.config, "workerinput") else "controller"
    with Path(os.environ[_TOLD]).open("a", encoding="ascii") as file:
        file.write(f"{who} {int(peak) / 1024:.1f}\n")


def main() -> int:
    """Run the suites and the empty test, and print the table."""
    suites = sys.argv[1:] or [str(_ROOT / "suites")]
    with tempfile.TemporaryDirectory(prefix="netmodes-bench-") as scratch:
        test = Path(scratch, "test_nothing.py")
        test.write_text("def test_nothing(): pass\n", encoding="utf-8")
        own = _peaks(scratch, "--no-report", *suites)
        others = _peaks(scratch, "-p", "no:harness.plugin", str(test), at=scratch)
    rows = [Row(who, tuple(peaks), unit="MB") for who, peaks in own.items()]
    rows += [
        Row(f"{who} of an empty run", tuple(peaks), unit="MB") for who, peaks in others.items()
    ]
    show("Peak resident memory", rows, against="worker of an empty run")
    return 0


def _peaks(scratch: str, *arguments: str, at: str | None = None) -> dict[str, list[float]]:
    told = Path(scratch, "told")
    told.write_text("", encoding="ascii")
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, _TOLD: str(told), "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "-p", "bench.memory", *arguments]
    subprocess.run(command, cwd=at or _ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[float]] = {}
    for line in told.read_text(encoding="ascii").splitlines():
        who, peak = line.split()
        found.setdefault(who, []).append(float(peak))
    return found


if __name__ == "__main__":
    sys.exit(main())
