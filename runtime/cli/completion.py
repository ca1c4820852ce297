"""Completion for a shell: `mydocker completion bash`, written by shtab from the grammar."""

from __future__ import annotations

import argparse

from runtime.cli.base import say
from runtime.errors import UnsupportedError


def completion(grammar: argparse.ArgumentParser, shell: str) -> int:
    """Print what makes a shell complete mydocker's commands and options."""
    try:
        import shtab  # an extra: only who asks needs it
    except ImportError as error:
        raise UnsupportedError(
            f"write completion for {shell}",
            "the library shtab is not installed",
            remedy="pip install 'netmodes[completion]'",
        ) from error
    say(shtab.complete(grammar, shell=shell))
    return 0
