"""What a test of many examples tells of how far it is, to whoever shows it: `harness.plugin.stepbar`."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    import hypothesis

WORKER_INPUT: Final = "netmodes_steps"
"""What the controller tells its workers: the name of a socket of the sandbox's, without the NUL.

A worker on another machine finds nobody there and tells nothing.
"""
_SECONDS: Final = 1.0
"""How long the last word may wait for somebody to read it; all others may be lost."""


class Far(NamedTuple):
    """How far a test is: in which example of how many, and in which step of it.

    An example of 0 is the end of all.
    """

    test: str
    example: int
    examples: int
    step: int
    steps: int


Tell = Callable[[Far], None]
SHOWN: Final = pytest.StashKey[Tell]()
"""Who shows it, where the tests run in the process that has the terminal."""


class Steps:
    """What a test says as it goes on."""

    def __init__(self, far: Far, tell: Tell) -> None:
        self._far, self._tell = far, tell
        self._states = 0

    def example(self) -> None:
        """One more example begins."""
        self._states = 0
        self._far = self._far._replace(example=self._far.example + 1, step=0)
        self._tell(self._far)

    def state(self) -> None:
        """One more state is looked at: the first one is before any step."""
        self._far = self._far._replace(step=self._states)
        self._states += 1
        self._tell(self._far)


@contextmanager
def telling(
    config: pytest.Config, test: str, settings: hypothesis.settings, *, steps: bool = False
) -> Iterator[Steps]:
    """Something to tell by in the body, which tries as many examples as `settings` say.

    `steps` is whether an example has any.
    """
    most = settings.stateful_step_count if steps else 0
    nothing_yet = Far(test, 0, settings.max_examples, 0, most)
    with _teller(config) as tell:
        try:
            yield Steps(nothing_yet, tell)
        finally:
            tell(nothing_yet)


@contextmanager
def _teller(config: pytest.Config) -> Iterator[Tell]:
    name = getattr(config, "workerinput", {}).get(WORKER_INPUT)
    if name is None:
        yield config.stash.get(SHOWN, lambda _: None)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:

        def tell(far: Far) -> None:
            channel.settimeout(0 if far.example else _SECONDS)
            with suppress(OSError):  # nobody listens, or is behind: it is only to be looked at
                channel.send(json.dumps(far).encode())

        with suppress(OSError):
            channel.connect(f"\0{name}")
        yield tell
