"""Number of workers, workers on other machines, and progress lines for `netmodes compare`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import pytest


def usual() -> int:
    """Return two workers per processor.

    Half of the time a test waits for the kernel: before the kernel frees a link, a namespace or a
    rule it waits for an RCU grace period. The same holds for every runtime, although its daemons
    then run twice as often.
    """
    return 2 * len(os.sched_getaffinity(0))


COMMAND: Final = "python"
"""The subcommand of `netmodes` that `main` implements."""
_TIMES: Final = re.compile(r"\d+\*")
_OVER_A_NETWORK: Final = frozenset({"ssh", "vagrant_ssh", "socket"})


def gateways(specs: Iterable[str], proxies: Iterable[str] = ()) -> tuple[bool, bool]:
    """Return whether pytest-xdist's `--tx` (and `--px`) specs name workers here, and elsewhere.

    A worker that is reached `via` another gateway is on the machine of that gateway.
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
    """Become the interpreter inside a new sandbox, with these arguments; return 1 if that fails."""
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
"""First word of a progress line: number of tests, start of a test, end of a test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that `netmodes compare` passes on."""
    group = parser.getgroup("netmodes compare")
    group.addoption("--tell-progress", type=int, metavar="FD", help="where to write lines to")


def pytest_configure(config: pytest.Config) -> None:
    """Write progress lines, in the process that sees every test."""
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
        """Report the number of tests in a run without workers."""
        self._note(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Report the number of tests in a run with workers, each of which collects all."""
        self._note(len(ids))

    def _note(self, number: int) -> None:
        if number > self._collected:
            self._collected = number
            self._tell(COLLECTED, number)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Report the start of a test."""
        self._tell(STARTED, nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """Report the end of a test."""
        self._tell(DONE)
