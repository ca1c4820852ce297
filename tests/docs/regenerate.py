"""Write the lab's current output to the pages: `python -m tests.docs.regenerate`.

A page with equivalent output is left unchanged. Check the changes before a commit: an unintended
change of output is a bug.
"""

from __future__ import annotations

import sys

from tests.docs.transcript import PAGE, differences, perform, read, rewritten, steps


def main() -> int:
    """Run the commands on the page, and rewrite the page if their output differs.

    Print whether the page was rewritten.
    """
    page = read()
    outputs = perform([step.command for step in steps(page)])
    found = differences(page, outputs)
    if found:
        PAGE.write_text(rewritten(page, outputs), encoding="utf-8")
    sys.stdout.write(f"{found}\n\n{PAGE.name} is rewritten\n" if found else f"{PAGE.name} holds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
