"""Number of pytest-xdist workers, and the command that starts workers on other machines."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn


def default_number() -> int:
    """Return the default number of workers: two for each available processor.

    A test waits half of its time for the kernel, which frees a link, a namespace or a rule only
    after an RCU grace period. Two workers per processor suit every runtime, although twice as many
    daemons run.
    """
    return 2 * len(os.sched_getaffinity(0))


COMMAND: Final = "python"
"""The subcommand of `netmodes` that `main` implements."""
_TIMES: Final = re.compile(r"\d+\*")
_OVER_A_NETWORK: Final = frozenset({"ssh", "vagrant_ssh", "socket"})


def gateways(specs: Iterable[str], proxies: Iterable[str] = ()) -> tuple[bool, bool]:
    """Return whether pytest-xdist's `--tx` specs name workers on this, and on other machines.

    A worker that is reached `via` another gateway, named by `--px`, is on the machine of that
    gateway.
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
    """Execute Python with these arguments in a new sandbox; return 1 if that fails."""
    from harness.sandbox import doctor, sandbox

    try:
        sandbox.enter()
    except sandbox.SandboxError as error:
        return _cannot(doctor.refusal(error))
    for missing in doctor.essentials():
        return _cannot(missing)
    return _become([sys.executable, *words])


def _become(argv: list[str]) -> NoReturn:
    os.execv(argv[0], argv)  # noqa: S606 # the running interpreter


def _cannot(finding: object) -> int:
    sys.stderr.write(f"netmodes {COMMAND}: this machine cannot run live tests: {finding}\n")
    return 1
