"""Duration of a run of all suites: `python -m bench.conformance [ROUNDS [SUITE…]]`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from bench.timing import alternate, show, timed

BAR = 25.0
"""Bound on `pytest -n auto` in seconds."""


def main() -> int:
    """Run `pytest` with `-n auto`, with one worker, and with `--collect-only`; print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    suites = sys.argv[2:] or ["suites"]

    def run(*options: str) -> float:
        command = [sys.executable, "-m", "pytest", "-q", *options, *suites]
        return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))

    rows = alternate(
        [
            ("pytest -n auto", lambda: run("-n", "auto")),
            ("pytest -n 1", lambda: run("-n", "1")),
            ("pytest --collect-only", lambda: run("--collect-only")),
        ],
        rounds=rounds,
    )
    rows[0] = replace(rows[0], bar=BAR)
    show("Conformance of mydocker", rows, against="pytest -n 1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
