"""mydocker, driven by its command line `python -m runtime`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from harness.adapters.docker_cli.spec import CliSpec, CliVerbs
from harness.adapters.mydocker import MydockerAdapter

SPEC: Final = CliSpec(
    name="mydocker-cli",
    command=(sys.executable, "-m", "runtime"),
    features=MydockerAdapter.features,
    known_version=MydockerAdapter.version,
    dialect=MydockerAdapter.dialect,
    words=CliVerbs(
        converse=("exec", "-i"),
        repair=("system", "repair"),
        reset=("system", "reset"),
        cidfile="",  # a failed start leaves no container
        mtu="mtu",
        icc="icc",
    ),
    load_image=False,
    env=(("PYTHONPATH", str(Path(__file__).parents[3])),),
)
