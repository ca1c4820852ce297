"""`python -m runtime` is `mydocker`."""

import sys

from runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
