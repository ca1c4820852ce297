"""Tests of imports, which take half of a command's time: only needed modules are imported."""

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
"""Modules for containers with a bridge network."""
IMAGES = {"runtime.image.config", "runtime.image.store", "runtime.container.options"}
NEVER = {
    *{"dataclasses", "logging", "pathlib", "shutil", "subprocess", "tempfile", "threading"},
    *{"hashlib", "gzip", "tarfile", "runtime.container.files", "runtime.image.images"},
    "runtime.container.processes",
}
"""Modules that neither `run` nor `exec` needs, such as those for archives and digests."""


def imported_by(root: Path, *words: str) -> set[str]:
    """Return the modules that a successful command has imported at its end."""
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
    """Return the name of a running container on the default bridge."""
    return engine.run("base", FOR_EVER).name


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        pytest.param(("run", "--rm", "base", "true"), set(), id="bridge"),
        pytest.param(
            ("run", "--rm", "--network", "none", "base", "true"),
            NETWORKS - {"linux.netlink", "socket"},  # to set `lo` up
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
def test_command_imports_only_needed_modules(
    root: Path, first: str, words: tuple[str, ...], unneeded: set[str]
) -> None:
    """Only `run` imports the modules for images and options.

    Only commands on bridge networks import the network modules.
    """
    seen = imported_by(root, *(word.replace("FIRST", first) for word in words))
    assert "runtime.engine" in seen
    assert seen & (NEVER | unneeded) == set()


def test_exec_imports_only_the_client_of_a_running_daemon(
    root: Path, engine: Engine, first: str
) -> None:
    """`exec` imports only the daemon's client while the daemon runs.

    The check for a killed daemon needs none of the network modules.
    """
    network = engine.network_create("lan").name
    engine.run("base", FOR_EVER, network=network)
    unneeded = NETWORKS - {"runtime.daemon.client", "socket"} | {"runtime.container.networking"}
    seen = imported_by(root, "exec", first, "true")
    assert "runtime.daemon.client" in seen
    assert seen & unneeded == set()


def test_no_garbage_collection_during_imports(root: Path, first: str) -> None:
    """The garbage collector does not run during imports.

    Imported objects stay until the end, and a collection takes a tenth of a command's time.
    """
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
def test_help_is_as_wide_as_with_plain_argparse(columns: str) -> None:
    """Help texts have argparse's width, although mydocker finds the width without shutil."""
    source = "import sys; from runtime.cli.main import parser; parser(sys.argv[1]).parse_args()"
    plain = "import argparse, runtime.cli.base as c; c.Parser = argparse.ArgumentParser; "
    helps = [
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
    assert helps[0] == helps[1]
    assert "--network" in helps[0]
