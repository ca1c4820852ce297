"""Half of what a command takes is importing: each imports what it needs, and no more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.engine import Engine
from tests.programs import environment, python
from tests.runtime.conftest import FOR_EVER

COLLECTING = """
import gc
import os
import sys
from runtime import __main__, cli

def end(code):
    print(gc.get_stats()[0]["collections"] - before)
    sys.stdout.flush()
    os._exit(code)

cli._end = end
before = gc.get_stats()[0]["collections"]
__main__.main()
"""


@pytest.fixture
def first(engine: Engine) -> str:
    """A container on the bridge, that runs."""
    return engine.run("base", FOR_EVER).name


def test_nothing_is_collected_amid_the_imports(root: Path, first: str) -> None:
    """All of it stays until the end: to look for garbage there takes a tenth of a command."""
    done = subprocess.run(
        python(COLLECTING, "exec", first, "true"),
        env=environment(MYDOCKER_ROOT=str(root)),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == ["0"]


@pytest.mark.parametrize("columns", ["40", "100", "", "wide"])
def test_help_is_as_wide_as_argparse_would_have_it(columns: str) -> None:
    """Who asks for it notices nothing of what is not imported."""
    source = "import sys; from runtime.parser import parser; parser(sys.argv[1]).parse_args()"
    plain = "import argparse, runtime.commands as c; c.Parser = argparse.ArgumentParser; "
    told = [
        subprocess.run(
            python(code, "run", "--help"),
            env=environment(COLUMNS=columns),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for code in (source, plain + source)
    ]
    assert told[0] == told[1]
    assert "--network" in told[0]
