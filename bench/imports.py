"""Time from the start of a process to the first test: `python -m bench.imports [ROUNDS]`.

Each contestant is a separate process. An empty pytest run with the plugin and one without it are
compared: the difference is the cost of netmodes for another project in the same environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.timing import alternate, show, timed

BAR = 1.2
"""Bound on the collection of all suites in seconds."""
_COLLECT = "all suites, --collect-only"
_ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run the contestants in turn and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="netmodes-bench-") as empty:
        test = Path(empty, "test_nothing.py")
        test.write_text("def test_nothing(): pass\n", encoding="utf-8")

        def pytest(*options: str) -> Callable[[], float]:
            command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
            return lambda: _seconds(*command, at=empty)

        suites = (f"--rootdir={_ROOT}", "-c", str(_ROOT / "pyproject.toml"))
        rows = alternate(
            [
                (_COLLECT, pytest("--collect-only", *suites, str(_ROOT / "suites"))),
                ("empty run, with the plugin", pytest("-p", "harness.plugin", str(test))),
                ("empty run, without the plugin", pytest("-p", "no:harness.plugin", str(test))),
                ("mydocker --help", lambda: _seconds("-m", "runtime", "--help", at=empty)),
                ("import scapy.all", lambda: _seconds("-c", "import scapy.all", at=empty)),
                ("import nothing", lambda: _seconds("-c", "", at=empty)),
            ],
            rounds=rounds,
        )
    rows = [replace(row, bar=BAR) if row.name == _COLLECT else row for row in rows]
    show("Import and collection", rows, against="empty run, without the plugin")
    return 0


def _seconds(*arguments: str, at: str) -> float:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}

    def work() -> None:
        subprocess.run(command, cwd=at, env=environment, check=True, stdout=subprocess.DEVNULL)

    return timed(work)


if __name__ == "__main__":
    sys.exit(main())
