"""Fixtures of the runtime tests: a host netns, and an engine in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox import sandbox
from linux import rtnetlink
from linux.netlink import Netlink
from linux.netns import NetNS
from runtime.engine import Engine
from tests.runtime.container.container_files import here, web

__all__ = ["here", "web"]

FOR_EVER = ["sleep", "1000000"]


@pytest.fixture
def root() -> Iterator[Path]:
    """Make a state directory on the sandbox's private tmpfs: overlays cannot be stacked."""
    sandbox.require()
    made = Path(tempfile.mkdtemp(dir="/run", prefix="mydocker-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def host() -> Iterator[NetNS]:
    """Make a fresh network namespace that stands for the host; the test runs inside it."""
    sandbox.require()
    with NetNS.new() as made, made.entered():
        with Netlink() as netlink:
            netlink.send([rtnetlink.set_link(rtnetlink.LO, up=True)])
        yield made


@pytest.fixture
def engine(root: Path, host: NetNS) -> Iterator[Engine]:
    """Make an engine in the host netns; remove all its resources at the end."""
    made = Engine(root)
    yield made
    made.teardown()


@pytest.fixture
def lan(engine: Engine) -> str:
    """Create a network with both address families."""
    engine.network_create("lan", subnet="10.9.0.0/24", subnet6="fd00:9::/64")
    return "lan"
