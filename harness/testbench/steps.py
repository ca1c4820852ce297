"""Progress of tests with many examples, for the display in `harness.plugin.stepbar`."""

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
"""Key of the worker input with the name of the sandbox's progress socket, without the NUL.

A worker on another machine finds no such socket and reports nothing.
"""
_SECONDS: Final = 1.0
"""Seconds that the last message may wait for the reader; all others may be lost."""


class Far(NamedTuple):
    """Progress of a test: the example of how many, and the step in it.

    An example of 0 is the end.
    """

    test: str
    example: int
    examples: int
    step: int
    steps: int


Tell = Callable[[Far], None]
SHOWN: Final = pytest.StashKey[Tell]()
"""Display in the process that has the terminal."""


class Steps:
    """Progress reports of a test."""

    def __init__(self, far: Far, tell: Tell) -> None:
        self._far, self._tell = far, tell
        self._states = 0

    def example(self) -> None:
        """Report the begin of an example."""
        self._states = 0
        self._far = self._far._replace(example=self._far.example + 1, step=0)
        self._tell(self._far)

    def state(self) -> None:
        """Report a state; the first one precedes any step."""
        self._far = self._far._replace(step=self._states)
        self._states += 1
        self._tell(self._far)


@contextmanager
def telling(
    config: pytest.Config, test: str, settings: hypothesis.settings, *, steps: bool = False
) -> Iterator[Steps]:
    """Report the progress of the body, which tries as many examples as `settings` say.

    `steps` is True if an example has steps.
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
            with suppress(OSError):  # without a reader, or with a slow one, the message is lost
                channel.send(json.dumps(far).encode())

        with suppress(OSError):
            channel.connect(f"\0{name}")
        yield tell
