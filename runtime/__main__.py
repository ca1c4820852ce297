"""Entry point of the `mydocker` command and of `python -m runtime`."""

import gc
import os
import sys

_THRESHOLD = 100_000
"""New objects between two garbage collections."""


def main() -> int:
    """Run the command in `sys.argv` and return its exit code."""
    # Imported modules stay until the end. A collection after every two thousand new objects would
    # search them for garbage, and takes a tenth of a command's time.
    gc.set_threshold(_THRESHOLD)
    _open_streams()
    from runtime.cli import main as cli

    return cli.main()


def _open_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed.

    Otherwise the next file that mydocker opens gets the number of that stream, and the container
    reads or writes the file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
