"""A bare runtime for tests that start no container."""

from __future__ import annotations

from pathlib import Path

from harness.adapters.bare.protocol import StartRequest


class Unasked:
    """It has nothing to forget, and whatever else it is asked for is a mistake."""

    def __init__(self, _: object) -> None:
        pass

    def start(self, request: StartRequest) -> int:
        """Never asked."""
        raise AssertionError(request)

    def forget(self, name: str, home: Path) -> None:
        """There is nothing."""

    def exec_words(self, name: str, pid: int) -> tuple[str, ...]:
        """Never asked."""
        raise AssertionError(name, pid)
