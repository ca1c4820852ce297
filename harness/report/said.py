"""A runtime's own words in a failure, kept apart from all that a test's code says about it.

A traceback quotes source lines, and an assertion what it has compared. What a runtime
said is in its refusals and breakdowns alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.adapters.protocol import RuntimeBroken, RuntimeRefused


def said(error: BaseException) -> tuple[str, ...]:
    """What the runtime said, once for each refusal and breakdown that an error consists of.

    Nothing where it is more than those: who is in a group of them, and on whose account it
    came up, counts as well.
    """
    words = [_words(part) for part in _parts(error, set())]
    return tuple(dict.fromkeys(filter(None, words))) if all(words) else ()


def _words(error: BaseException) -> str:
    match error:
        case RuntimeRefused():
            return error.said
        case RuntimeBroken():
            return str(error)
        case _:
            return ""


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
