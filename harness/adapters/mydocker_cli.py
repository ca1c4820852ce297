"""mydocker over its command line: the same suites, through the words that a user types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness.adapters.cli_factory import CliFactory
from harness.adapters.cli_spec import CliSpec, Words
from harness.adapters.mydocker import MydockerAdapter

SPEC: Final = CliSpec(
    name="mydocker-cli",
    command=(sys.executable, "-m", "runtime"),
    features=MydockerAdapter.features,
    version=MydockerAdapter.version,
    dialect=MydockerAdapter.dialect,
    words=Words(
        converse=("exec", "-i"),
        repair=("system", "repair"),
        reset=("system", "reset"),
        cidfile="",  # of a start that fails nothing stays
        mtu="mtu",
        icc="icc",
    ),
    load_image=False,
    env=(("PYTHONPATH", str(Path(__file__).parents[2])),),
)


def adapter() -> CliFactory:
    """What makes adapters of it."""
    return CliFactory(SPEC)
