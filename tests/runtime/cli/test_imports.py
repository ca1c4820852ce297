"""Half of what a command takes is importing: each imports what it needs, and no more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.engine import Engine
from tests.runtime.conftest import FOR_EVER
from tests.support.programs import environment, python

COMMAND = """
import sys
from runtime.cli import main

code = main.main(sys.argv[1:])
print(*sorted(sys.modules))
sys.exit(code)
"""
COLLECTING = """
import gc
import os
import sys
from runtime import __main__

own, leave = os.getpid(), os._exit

def end(code):
    if os.getpid() == own:
        print(gc.get_stats()[0]["collections"] - before)
        sys.stdout.flush()
    leave(code)

os._exit = end
before = gc.get_stats()[0]["collections"]
__main__.main()
"""
NETWORKS = {
    "linux.netlink",
    "linux.nftables",
    "runtime.daemon.client",
    "runtime.network.bridge",
    "runtime.network.manager",
    "runtime.network.endpoint",
    "socket",
}
"""About networks of a container's own, whatever they are."""
IMAGES = {"runtime.image.config", "runtime.image.store", "runtime.container.options"}
NOBODY = {
    *{"dataclasses", "logging", "pathlib", "shutil", "subprocess", "tempfile", "threading"},
    *{"hashlib", "gzip", "tarfile", "runtime.container.files", "runtime.image.images"},
    "runtime.container.processes",
}
"""Archives and digests are for those who load, not for those who run; and so on."""


def loaded(root: Path, *words: str) -> set[str]:
    """The modules that a command has imported when it has ended well."""
    done = subprocess.run(
        python(COMMAND, *words),
        env=environment(MYDOCKER_ROOT=str(root)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture
def first(engine: Engine) -> str:
    """A container on the bridge, that runs."""
    return engine.run("base", FOR_EVER).name


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        pytest.param(("run", "--rm", "base", "true"), set(), id="bridge"),
        pytest.param(
            ("run", "--rm", "--network", "none", "base", "true"),
            NETWORKS - {"linux.netlink", "socket"},  # which bring `lo` up
            id="none",
        ),
        pytest.param(("run", "--rm", "--network", "host", "base", "true"), NETWORKS, id="host"),
        pytest.param(
            ("run", "--rm", "--network", "container:FIRST", "base", "true"),
            NETWORKS,
            id="container:",
        ),
        pytest.param(
            ("exec", "FIRST", "true"),
            NETWORKS | IMAGES | {"runtime.container.networking"},
            id="exec",
        ),
    ],
)
def test_a_command_imports_what_it_needs(
    root: Path, first: str, words: tuple[str, ...], unneeded: set[str]
) -> None:
    """Networks are for containers that are on some, images and options for those that start."""
    seen = loaded(root, *(word.replace("FIRST", first) for word in words))
    assert "runtime.engine" in seen
    assert seen & (NOBODY | unneeded) == set()


def test_what_a_start_needs_of_networks_is_imported_beside_the_child(root: Path) -> None:
    """Which builds the file system meanwhile, on another processor."""
    seen = loaded(root, "completion", "bash")
    assert seen & (NETWORKS | IMAGES) == set()


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
    source = "import sys; from runtime.cli.main import parser; parser(sys.argv[1]).parse_args()"
    plain = "import argparse, runtime.cli.base as c; c.Parser = argparse.ArgumentParser; "
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
