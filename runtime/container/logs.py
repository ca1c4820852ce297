"""Logs of containers: one JSON object per line, with time and stream, in Docker's format."""

from __future__ import annotations

import json
import os
import select
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from linux import proc
from linux.proc import FileWatch
from runtime.init.supervise import append, entry
from runtime.records import ContainerState


class LogEntry(NamedTuple):
    """One line, or a part of an overlong line.

    `time` is in RFC 3339; `stream` is `stdout` or `stderr`.
    """

    time: str
    stream: str
    data: bytes


class LogWriter:
    """Writer that appends the output relayed by the caller to a log."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, data: bytes) -> None:
        """Write one entry; drop it if the disk is full."""
        append(self._fd, entry("stdout", data))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read(
    directory: str,
    state: ContainerState,
    *,
    follow: bool,
    tail: int | None = None,
    since: str = "",
) -> Iterator[LogEntry]:
    """Yield the existing log entries; with `follow` also later ones, until the container ends.

    Of the existing entries, yield only the last `tail`, and none older than `since`.
    """
    path = f"{directory}/log"
    if not os.path.exists(path):
        return
    handle = proc.pidfd(state.pid, state.born) if follow and state.pid else None
    with open(path, "rb") as file, FileWatch(path) as watch:
        poll = select.poll()
        poll.register(watch.fd, select.POLLIN)
        if handle is not None:
            poll.register(handle, select.POLLIN)
        try:
            while True:
                # Check the end before reading: entries written until then are read below.
                ended = handle is None or proc.ended_within(handle, 0)
                # Keep only the last ones while reading: a log may be larger than the memory.
                entries = (item for item in _entries(file) if item.time >= since)
                yield from entries if tail is None else deque(entries, maxlen=tail)
                tail = None
                if ended or handle is None:
                    return
                poll.poll()
                watch.drain()
        finally:
            if handle is not None:
                os.close(handle)


def _entries(log: BinaryIO) -> Iterator[LogEntry]:
    for line in log:
        if not line.endswith(b"\n"):
            # The line is being written, or the disk was full and the line is being taken back.
            log.seek(-len(line), os.SEEK_CUR)
            return
        found = json.loads(line)
        yield LogEntry(
            found["time"], found["stream"], found["log"].encode(errors="surrogateescape")
        )
