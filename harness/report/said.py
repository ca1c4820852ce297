"""A runtime's own words in a failure, kept apart from all that a test's code says about it.

A traceback quotes source lines, and an assertion what it has compared. A breakdown is told with
the end of a log, which is about whatever has happened before as well. What a runtime said to what
it was asked is in its refusals alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.adapters.protocol import RuntimeRefused


def said(error: BaseException) -> tuple[str, ...]:
    """What the runtime said, once for each refusal that an error consists of.

    Nothing where it is more than those: who is in a group of them, and on whose account it
    came up, counts as well.
    """
    words = [_words(part) for part in _parts(error, set())]
    return tuple(dict.fromkeys(filter(None, words))) if all(words) else ()


def _words(error: BaseException) -> str:
    return error.said if isinstance(error, RuntimeRefused) else ""


def _parts(error: BaseException, met: set[int]) -> Iterator[BaseException]:
    """Every exception that is told with this one, as a traceback would tell them."""
    if id(error) in met:
        return
    met.add(id(error))
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _parts(inner, met)
    else:
        yield error
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _parts(before, met)
