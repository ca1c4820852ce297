"""Write the lab's present output into the pages: `python -m tests.docs.regenerate`.

A page whose outputs still hold is left unchanged. Check the difference before a commit: an
unintended change is a bug that the page has found.
"""

from __future__ import annotations

import sys

from tests.docs.transcript import PAGE, differences, perform, read, rewritten, steps


def main() -> int:
    """Run the page's commands and rewrite it if it differs; report the result."""
    page = read()
    outputs = perform([step.command for step in steps(page)])
    found = differences(page, outputs)
    if found:
        PAGE.write_text(rewritten(page, outputs), encoding="utf-8")
    sys.stdout.write(f"{found}\n\n{PAGE.name} is rewritten\n" if found else f"{PAGE.name} holds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
