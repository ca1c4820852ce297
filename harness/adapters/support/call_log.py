"""Log of requests to a runtime that is driven as a library, in the form of commands.

An entry costs no more than a tuple: arguments and results become text only when the log is read
after a failure.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from harness.adapters.protocol import HostHandle
from harness.world.process import CompletedCommand

P = ParamSpec("P")
T = TypeVar("T")

_KEPT: Final = 200
_LONGEST: Final = 2000
"""Maximum length of the text of one argument or result."""


class _Call(NamedTuple):
    request: str
    arguments: tuple[Any, ...]
    answer: Any
    refusal: str
    at: float
    seconds: float


class CallLog:
    """Log of the last functions that were executed in the host."""

    def __init__(self, host: HostHandle) -> None:
        self._host = host
        self._kept: deque[_Call | CompletedCommand] = deque(maxlen=_KEPT)

    def call(self, request: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` inside the host and log it as `request`; its exceptions pass through."""
        at, began = time.time(), time.perf_counter()
        answer: T | None = None
        refusal = ""
        try:
            answer = self._host.call(function, *args, **kwargs)
        except BaseException as error:
            refusal = f"{type(error).__name__}: {error}"
            raise
        else:
            return answer
        finally:
            arguments = (*args, kwargs) if kwargs else args
            seconds = time.perf_counter() - began
            self._kept.append(_Call(request, arguments, answer, refusal, at, seconds))

    def keep(self, done: CompletedCommand) -> None:
        """Add a command to the log that was run for the runtime."""
        self._kept.append(done)

    @property
    def entries(self) -> list[CompletedCommand]:
        """The last requests and commands, the oldest first.

        The words of an entry are the request and its arguments. A request that raised an exception
        has exit code 1 and the exception as error output.
        """
        return [
            item if isinstance(item, CompletedCommand) else _command(item) for item in self._kept
        ]


def _command(call: _Call) -> CompletedCommand:
    argv = (call.request, *(repr(item)[:_LONGEST] for item in call.arguments))
    answer = "" if call.answer is None else repr(call.answer)[:_LONGEST]
    return CompletedCommand(
        argv, int(bool(call.refusal)), answer, call.refusal, call.seconds, call.at
    )
