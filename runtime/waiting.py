"""Waiting for the end of a container, and for word that the caller gets no more of its output."""

from __future__ import annotations

import os
import select
from typing import Final

from runtime import container
from runtime.errors import unheard
from runtime.records import Container

KILLED: Final = 137
"""The exit code of a container whose pid 1 was killed: 128 and SIGKILL."""
_MOST: Final = 4096
"""More bytes than two streams are ever lost in."""


def exit_code(found: Container, directory: str, *, lost: int = -1) -> int:
    """Wait until a running container has ended; its exit code.

    `lost` is where its pid 1 tells of what the caller gets no more (`supervise.Stream`), or -1:
    `OutputError` as soon as it has, also when the container has ended meanwhile.
    """
    # Opened before: with auto_remove anybody may remove the record then.
    with open(f"{directory}/exit", "rb") as record:
        handle = container.pidfd(found.state.pid, found.state.born)
        if handle is not None:
            try:
                _ended_or_told(handle, lost)
            finally:
                os.close(handle)
        refuse_lost(found, lost)
        text = record.read().split()
    return int(text[0]) if text else KILLED


def _ended_or_told(handle: int, lost: int) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if lost >= 0:
        poll.register(lost, select.POLLIN)
    while True:
        events = dict(poll.poll())
        if handle in events or events.get(lost, 0) & select.POLLIN:
            return
        poll.unregister(lost)  # pid 1 has closed it, and is about to end


def refuse_lost(found: Container, lost: int) -> None:
    """Raise `OutputError` when a container has told that the caller does not get its output."""
    if lost < 0:
        return
    os.set_blocking(lost, False)
    try:
        told = os.read(lost, _MOST).split()
    except BlockingIOError:
        return
    if told:
        kept = " until it ends (--rm)" if found.config.auto_remove else ""
        raise unheard(
            f"pass on the {told[0].decode()} of container {found.name!r}",
            int(told[1]),
            f"`mydocker logs -f {found.name}`, which has all of it{kept}",
        )
