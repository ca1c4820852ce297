"""What begins first: the command `mydocker`, and `python -m runtime`, which is the same."""

import gc
import os
import sys

_ENOUGH = 100_000
"""Objects more than before that make a collection worth its time."""


def main() -> int:
    """Run the command that the program's words are; its exit code."""
    # Nothing of what is imported now ever becomes garbage: to look for some amid it, every
    # two thousand objects, takes a tenth of a whole command.
    gc.set_threshold(_ENOUGH)
    _open_streams()
    from runtime.cli import main as cli

    return cli.main()


def _open_streams() -> None:
    """Lead to nowhere whichever standard stream the caller has closed.

    Else what is opened next would have its number, and be read or written by the container.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
