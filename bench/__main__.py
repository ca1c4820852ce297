"""All benches: `python -m bench [--small] [--json FILE] [--html FILE] [--svg FILE] [NAME…]`.

Each bench is a process with its own sandbox. The output ends with a table of all figures. `--json`
writes the figures and facts about the machine, `--html` a page with the tables, and `--svg` the
plot of `bench.growth`. `--small` runs each bench at its smallest size, to test the bench. Such
figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.plot import growth
from bench.timing import RECORD, Row, show

BENCHES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "imports": ((), ("1",)),
    "world": ((), ("1",)),
    "matrix": ((), ("1",)),
    "cells": ((), ("1", "4")),
    "snapshot": ((), ("1",)),
    "start": ((), ("1",)),
    "lifecycle": ((), ("1",)),
    "commands": ((), ("1",)),
    "growth": ((), ("2", "4")),
    "memory": ((), ("suites/modes/test_none.py",)),
    "evidence": ((), ("1", "suites/modes/test_none.py")),
    "conformance": ((), ("1", "suites/modes/test_none.py")),
    "waits": ((), ("1", "suites/modes/test_none.py")),
}
"""Arguments of each bench, and its arguments with `--small`."""


def main() -> int:
    """Run the benches, print the tables, and write the files; return 1 if a bench failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure netmodes and mydocker beside their rivals."
    )
    known = ", ".join(BENCHES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{known}; default: all")
    parser.add_argument(
        "--small", action="store_true", help="smallest sizes, to check that the benches work"
    )
    written = parser.add_argument_group("output files")
    written.add_argument("--json", metavar="FILE", help="write all figures and the machine")
    written.add_argument("--html", metavar="FILE", help="write a page with tables and plot")
    written.add_argument("--svg", metavar="FILE", help="write the plot of bench.growth")
    asked = parser.parse_args()
    if unknown := set(asked.names) - BENCHES.keys():
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="netmodes-bench-") as scratch:
        record = Path(scratch, "record")
        record.write_text("", encoding="utf-8")
        for name in asked.names or BENCHES:
            command = [sys.executable, "-m", f"bench.{name}", *BENCHES[name][asked.small]]
            environment = {**os.environ, RECORD: str(record)}
            if subprocess.run(command, env=environment, check=False).returncode:
                failed.append(name)
        tables = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    found = {"machine": machine(), "tables": tables, "failed": failed}
    show("All benches", [row for table in tables for row in _rows(table)])
    if asked.json:
        _write(asked.json, json.dumps(found, indent=2) + "\n")
    if asked.html:
        from bench.page import render

        _write(asked.html, render(found))
    if asked.svg:
        _write(asked.svg, growth(tables))
    for name in failed:
        print(f"bench.{name} failed", file=sys.stderr)
    return bool(failed)


def _write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def machine() -> dict[str, object]:
    """Return facts about this machine: hardware, kernel and load."""
    memory = Path("/proc/meminfo").read_text(encoding="ascii").split()[1]
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory) / (1 << 20)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _rows(table: dict[str, Any]) -> list[Row]:
    return [Row.of({**row, "name": f"{table['title']}: {row['name']}"}) for row in table["rows"]]


if __name__ == "__main__":
    sys.exit(main())
