"""The network modes and the options that contradict each of them.

`bridge`, `none`, `host`, `container:<id>`, or the name of a network.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, cast

from linux.netns import NetNS
from runtime.errors import InvalidError, NotFoundError
from runtime.records import DEFAULT_NETWORK, ContainerRecord
from runtime.store import NAME

Kind = Literal["bridge", "host", "none", "container"]

_ADDRESSED: Final = ("publish", "mac", "ip", "ip6")
_SHARED: Final = ("hostname", "dns", "add-host", "alias", "net sysctl")
CONTRADICTIONS: Final[dict[Kind, tuple[str, ...]]] = {
    "bridge": (),
    "none": _ADDRESSED,
    "host": (*_ADDRESSED, "net sysctl"),
    "container": (*_ADDRESSED, *_SHARED),
}
"""Options that each mode refuses, by name; each of them needs the container's own network."""


class Mode(NamedTuple):
    """Requested mode: its kind, and the network or container it names."""

    kind: Kind
    name: str = ""


KNOWN: Final = "bridge, none, host, container:<name or id>, or the name of a network"
"""The modes in words, for error messages."""


def parse(text: str) -> Mode:
    """Parse a mode; `InvalidError` lists the modes."""
    if text in ("host", "none"):
        return Mode(cast("Kind", text))
    if text in ("bridge", "default", ""):
        return Mode("bridge", DEFAULT_NETWORK)
    prefix, colon, rest = text.partition(":")
    if colon and prefix == "container" and rest:
        return Mode("container", rest)
    if NAME.fullmatch(text):
        return Mode("bridge", text)
    raise InvalidError(f"use the network mode {text!r}", "there is no such mode", remedy=KNOWN)


def refuse(mode: Mode, asked: str, options: list[str]) -> None:
    """Raise `InvalidError` with the names of the options that the mode contradicts."""
    wrong = [option for option in options if option in CONTRADICTIONS[mode.kind]]
    if wrong:
        shown = f"container:{mode.name}" if mode.kind == "container" else mode.kind
        raise InvalidError(
            asked,
            f"{', '.join(wrong)} cannot go with network mode {shown}",
            "the option needs a network of the container's own",
            "leave the option out, or use a bridge network",
        )


def prepare(netns: NetNS) -> None:
    """Bring `lo` up: 127.0.0.1 and, where the kernel has IPv6, ::1."""
    from linux import rtnetlink  # no other mode needs netlink
    from linux.netlink import Netlink

    with Netlink(netns) as inside:
        inside.send([rtnetlink.set_link(rtnetlink.LO, up=True)])


def join(asked: str, joined: ContainerRecord) -> NetNS:
    """Return the netns of a running container, also a joiner's; `NotFoundError` otherwise."""
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
