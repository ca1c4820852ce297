"""Mode container:<id>: the network namespace of another container.

Nothing but that namespace is shared; hostname, processes and files stay apart.
The joiner keeps the namespace alive by being in it. When the joined container
stops, its veth pair goes, and the joiner is left with `lo`.
"""

from __future__ import annotations

from linux.netns import NetNS
from runtime.errors import NotFoundError
from runtime.records import Container


def join(asked: str, joined: Container) -> NetNS:
    """The namespace of a running container, a joiner's included; `NotFoundError` else."""
    if not joined.running:
        raise NotFoundError(
            asked,
            f"container {joined.name} is not running ({joined.state.status})",
            remedy=f"mydocker start {joined.name}",
        )
    try:
        return NetNS.at(f"/proc/{joined.state.pid}/ns/net")
    except FileNotFoundError:
        raise NotFoundError(asked, f"container {joined.name} just stopped") from None
