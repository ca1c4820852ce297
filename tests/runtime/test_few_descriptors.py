"""Tests of calls with too few free descriptors: they fail early and leave nothing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.engine import Engine
from runtime.errors import REQUIRED_DESCRIPTORS, ExhaustedError
from runtime.records import ContainerRecord
from tests.runtime.conftest import FOR_EVER
from tests.runtime.support.descriptors import free_descriptors
from tests.runtime.support.inspection import everything, family, nothing_left, until
from tests.support.programs import environment

_PUBLISHED = 6
_PORTS = [f"8080-{8079 + _PUBLISHED}:80-{79 + _PUBLISHED}", "9000:80/udp"]
_SOCKETS = (_PUBLISHED + 1) * 2 + 1
"""Descriptors: one for each port of either family, and one for the rules."""
_OPEN = 16
"""Descriptors that a start has open by then, at most."""


def _run(engine: Engine) -> ContainerRecord:
    return engine.run("base", FOR_EVER, name="x", network="lan", publish=_PORTS)


def _run_alone(engine: Engine) -> ContainerRecord:
    return engine.run("base", FOR_EVER, name="x", network="none")


def _stopped(engine: Engine) -> None:
    _run(engine)
    engine.stop("x")


def _run_beside(engine: Engine) -> None:
    engine.network_create("two")
    _run(engine)


def _create(engine: Engine) -> ContainerRecord:
    return engine.create("base", FOR_EVER, name="x", network="lan", publish=_PORTS)


CALLS: dict[str, tuple[Callable[[Engine], object], Callable[[Engine], object]]] = {
    "run": (lambda _: None, _run),
    "run alone": (lambda _: None, _run_alone),
    "create": (lambda _: None, _create),
    "start": (_stopped, lambda e: e.start("x")),
    "stop": (_run, lambda e: e.stop("x")),
    "restart": (_run_alone, lambda e: e.restart("x")),
    "kill": (_run, lambda e: e.kill("x")),
    "rm": (_run, lambda e: e.remove("x", force=True)),
    "exec": (lambda _: None, lambda e: e.exec("web", ["true"])),
    "network connect": (_run_beside, lambda e: e.network_connect("two", "x")),
    "network create": (lambda _: None, lambda e: e.network_create("two")),
    "network rm": (lambda e: e.network_create("two"), lambda e: e.network_remove("two")),
    "network prune": (lambda e: e.network_create("two"), lambda e: e.network_prune()),
    "network ls": (lambda _: None, lambda e: e.networks()),
    "inspect": (lambda _: None, lambda e: e.inspect("web")),
    "diff": (lambda _: None, lambda e: e.inside.diff("web")),
    "commit": (lambda _: None, lambda e: e.inside.commit("web", "made")),
    "images": (lambda _: None, lambda e: e.images.all()),
    "volumes": (lambda _: None, lambda e: e.volumes.create("data")),
}


@pytest.mark.parametrize("call", CALLS)
def test_call_with_few_free_descriptors_works_or_leaves_nothing(
    engine: Engine, lan: str, root: Path, call: str
) -> None:
    """A call with any number of free descriptors works, or leaves nothing."""
    prepare, act = CALLS[call]
    engine.run("base", FOR_EVER, name="web", network=lan)
    prepare(engine)
    own = Engine(root)
    with nothing_left(root):
        for spare in range(REQUIRED_DESCRIPTORS - 1):
            with pytest.raises(ExhaustedError, match="ulimit -n"), free_descriptors(spare):
                act(own)
    for spare in range(REQUIRED_DESCRIPTORS - 1, REQUIRED_DESCRIPTORS + _SOCKETS + _OPEN):
        before = everything(root)
        try:
            with free_descriptors(spare):
                act(own)
        except ExhaustedError:
            until(lambda: family(root) <= before.processes, "the processes have ended")  # noqa: B023
            assert everything(root)._replace(processes=before.processes) == before
        else:
            return
    raise AssertionError("there is never enough")


def test_connect_without_descriptors_for_its_ports_is_repaired(engine: Engine) -> None:
    """The next mydocker call repairs a connect that lacked descriptors for its ports.

    A connect needs a descriptor for each relayed port.
    """
    engine.network_create("lan", subnet6="fd00:9::/64")
    engine.network_create("two", subnet6="fd00:8::/64")
    engine.run("base", FOR_EVER, name="x", network="two", publish=["[::1]:8000-8049:80-129"])
    with (
        pytest.raises(ExhaustedError, match="connect container"),
        free_descriptors(REQUIRED_DESCRIPTORS),
    ):
        engine.network_connect("lan", "x")
    assert engine.network_disconnect("lan", "x").state.changing == ""


def test_commit_of_tree_deeper_than_free_descriptors_is_refused(engine: Engine, root: Path) -> None:
    """`commit` of a tree deeper than the free descriptors allow is refused.

    The error says that the tree is too deep, with a remedy; nothing of the image is left.
    """
    engine.run("base", FOR_EVER, name="x", network="none")
    engine.exec("x", ["sh", "-c", f"mkdir -p {'/d' * 2 * REQUIRED_DESCRIPTORS}"])
    with (
        pytest.raises(ExhaustedError, match="commit to made"),
        free_descriptors(REQUIRED_DESCRIPTORS),
    ):
        engine.inside.commit("x", "made")
    engine.inside.commit("x", "made")


@pytest.mark.parametrize("limit", [5, 8, 20, 30])
@pytest.mark.parametrize("words", [["run", "--rm", "base", "true"], ["ps"]], ids=" ".join)
def test_command_with_low_descriptor_limit_names_the_remedy(
    root: Path, words: list[str], limit: int
) -> None:
    """A command with a low descriptor limit prints one sentence with the remedy.

    The exit code is that of a command that was not carried out.
    """

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "runtime", *words],
        env=environment(MYDOCKER_ROOT=str(root)),
        preexec_fn=lower,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (125 if words[0] == "run" else 1, "")
    assert done.stderr.startswith("mydocker: cannot use mydocker: Too many open files\n")
    assert "try: `ulimit -n`" in done.stderr
    assert os.listdir(root) == []
