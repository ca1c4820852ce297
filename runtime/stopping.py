"""Stopping a container: it is asked, given its time, and killed."""

from __future__ import annotations

import os
import signal
import time

from runtime import container
from runtime.errors import NotFoundError
from runtime.lifecycle import Lifecycle
from runtime.records import Container
from runtime.signals import number_of


class Stopping:
    """A container that is asked to end, as its image says, and has `timeout` seconds from then on.

    One that does not run stays as it is. Meanwhile nobody's lock is held: others may kill or
    remove it.
    """

    def __init__(self, life: Lifecycle, reference: str, *, timeout: float) -> None:
        self._life = life
        with life.held(reference) as found:
            self._found = found
            if found.running:
                running = life.unpause(found) if found.state.paused else found
                life.kill(running, _number(found))
        self._deadline = time.monotonic() + timeout

    def finish(self) -> Container:
        """Wait, kill what is left when the time is over, and return when all is gone."""
        found = self._found
        if not found.running:
            return found
        handle = container.pidfd(found.state.pid, found.state.born)
        try:
            if handle is not None:
                left = max(0.0, self._deadline - time.monotonic())
                container.ended_within(handle, int(left * 1000))
            with self._life.held(found.id) as there:
                if not there.running or there.state.born != found.state.born:
                    return there
                return self._life.end(there)
        except NotFoundError:
            return found  # it has been removed, by somebody else or because it was to be
        finally:
            if handle is not None:
                os.close(handle)


def _number(found: Container) -> int:
    wanted = found.config.stop_signal
    return number_of(f"stop {found.name!r}", wanted) if wanted else signal.SIGTERM
