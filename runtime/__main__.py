"""What begins first: the command `mydocker`, and `python -m runtime`, which is the same."""

import gc
import sys

_ENOUGH = 100_000
"""Objects more than before that make a collection worth its time."""


def main() -> int:
    """Run the command that the program's words are; its exit code."""
    # Nothing of what is imported now ever becomes garbage: to look for some amid it, every
    # two thousand objects, takes a tenth of a whole command.
    gc.set_threshold(_ENOUGH)
    from runtime import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
