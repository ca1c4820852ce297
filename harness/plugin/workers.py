"""How many tests run side by side where nobody says so."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import pytest


def usual() -> int:
    """Two for each processor.

    Half of the time the kernel is waited for: before it lets go of a link, a namespace or a rule it
    waits until nobody can be looking at it. So it is with every runtime, be it that its daemons
    are there twice as often then.
    """
    return 2 * len(os.sched_getaffinity(0))


COMMAND: Final = "python"
"""The command of `netmodes` that `main` is."""
_TIMES: Final = re.compile(r"\d+\*")
_OVER_A_NETWORK: Final = frozenset({"ssh", "vagrant_ssh", "socket"})


def gateways(specs: Iterable[str], proxies: Iterable[str] = ()) -> tuple[bool, bool]:
    """Whether pytest-xdist's `--tx` specs (and its `--px` ones) name workers here, and elsewhere.

    A worker that is reached `via` another gateway is where that one is.
    """
    elsewhere = {id_ for spec in proxies if (id_ := _via(spec, "id")) and _is_remote(spec)}
    remote = [_is_remote(spec) or _via(spec, "via") in elsewhere for spec in specs]
    return not all(remote), any(remote)


def _parts(spec: str) -> dict[str, str]:
    words = (word.partition("=") for word in _TIMES.sub("", spec, count=1).split("//"))
    return {key: value for key, _, value in words}


def _is_remote(spec: str) -> bool:
    return not _OVER_A_NETWORK.isdisjoint(_parts(spec))


def _via(spec: str, key: str) -> str:
    return _parts(spec).get(key, "")


def main(words: Sequence[str]) -> int:
    """Become the interpreter inside a new sandbox, with these arguments; 1 where there is none."""
    from harness.sandbox import doctor, sandbox

    try:
        sandbox.enter()
    except sandbox.SandboxError as error:
        return _cannot(doctor.refusal(error))
    for missing in doctor.essentials():
        return _cannot(missing)
    return _become([sys.executable, *words])


def _become(argv: list[str]) -> NoReturn:
    os.execv(argv[0], argv)  # noqa: S606 # the same interpreter, elsewhere


def _cannot(finding: object) -> int:
    sys.stderr.write(f"netmodes {COMMAND}: this machine cannot run live tests: {finding}\n")
    return 1


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
