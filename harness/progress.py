"""The pytest plugin by which `netmodes compare` is told how far a run is."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

COLLECTED, STARTED, DONE = "collected", "started", "done"
"""The first word of each line: how many tests there are; which one begins; that one has ended."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `netmodes compare` passes on."""
    group = parser.getgroup("netmodes compare")
    group.addoption("--tell-progress", type=int, metavar="FD", help="where to write lines to")


def pytest_configure(config: pytest.Config) -> None:
    """Tell, in the process that sees every test."""
    fd = config.getoption("tell_progress")
    if fd is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Teller(fd), "netmodes-progress")


class _Teller:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._collected = 0

    def _tell(self, *words: object) -> None:
        os.write(self._fd, " ".join(map(str, words)).encode(errors="replace") + b"\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without workers the tests are collected here."""
        self._note(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """With workers each of them collects all."""
        self._note(len(ids))

    def _note(self, number: int) -> None:
        if number > self._collected:
            self._collected = number
            self._tell(COLLECTED, number)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._tell(STARTED, nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """A test has ended."""
        self._tell(DONE)
