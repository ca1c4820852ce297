"""How the command line speaks: answers, complaints, and doing a thing to several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from runtime.errors import MydockerError, OutputError, unheard


def say(text: str) -> None:
    """Write one answer, at once; `OutputError` where that cannot be, for want of room or medium."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # nobody wants it any more
    except OSError as error:
        raise untold(error) from error


def untold(error: OSError) -> OutputError:
    """What it means that an answer cannot be written."""
    return unheard("tell what was asked for", error.errno or 0)


def complain(error: Exception) -> None:
    """Tell what went wrong; a call's own words without the number that Python puts before them."""
    told = str(error)
    if isinstance(error, OSError) and error.strerror:
        told = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    with suppress(OSError):  # nobody is there to be told; the exit code tells
        sys.stderr.write(f"mydocker: {told}\n")


def each(references: Sequence[str], act: Callable[[str], object]) -> int:
    """Do it for all, whatever becomes of the others; 1 when one could not be done.

    Says what `act` answers in words or numbers, else what it was done to.
    """
    code = 0
    for reference in references:
        try:
            answer = act(reference)
        except MydockerError as error:
            complain(error)
            code = 1
        else:
            say(str(answer) if isinstance(answer, int | str) else reference)
    return code


def each_at_once(references: Sequence[str], begin: Callable[[str], Callable[[], object]]) -> int:
    """As `each`, of what takes its time: it is begun for all before one is waited for.

    `begin` gives what brings it to its end.
    """
    begun: dict[str, Callable[[], object]] = {}
    for reference in references:
        try:
            begun[reference] = begin(reference)
        except MydockerError as error:
            begun[reference] = partial(_tell, error)
    return each(references, lambda reference: begun[reference]())


def _tell(error: MydockerError) -> NoReturn:
    raise error
