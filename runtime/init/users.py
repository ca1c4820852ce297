"""User of a command, as looked up in the container's files.

All code here runs inside the container's root, in a process that is about to become the command;
/etc/passwd and /etc/group belong to the image and may have any content.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from runtime.errors import InvalidError, UnsupportedError

_HIGHEST: Final = (1 << 32) - 2
"""Highest ID; the next one means "unchanged" to the kernel."""
_MOST: Final = 1 << 20
"""Maximum number of bytes that are read of passwd or group."""


class User(NamedTuple):
    """A user, its groups and its home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find(text: str) -> User:
    """Return the user for `name or uid[:group or gid]`; `InvalidError` if it is unknown."""
    user, _, group = text.partition(":")
    user = user or "0"
    known = next((line for line in _lines("/etc/passwd", 7) if user in (line[0], line[2])), None)
    if known is None and not user.isdigit():
        raise InvalidError(
            f"run as the user {user!r}", "no such user in the image's /etc/passwd", remedy="-u UID"
        )
    uid = int(known[2] if known else user)
    groups = _lines("/etc/group", 4)
    home = (known[5] if known else "") or "/"
    _check_id("user", uid)
    if group:
        gid = _group(group, groups)
        _check_id("group", gid)
        return User(uid, gid, (), home)
    if known is None:
        return User(uid, 0, (), home)
    others = tuple(int(line[2]) for line in groups if known[0] in line[3].split(","))
    return User(uid, int(known[3]) if known[3].isdigit() else 0, others, home)


def _check_id(what: str, number: int) -> None:
    if number > _HIGHEST:
        raise InvalidError(
            f"run as the {what} {number}",
            "the ID is too high for the kernel",
            f"the highest is {_HIGHEST}",
        )


def _group(text: str, groups: list[list[str]]) -> int:
    for line in groups:
        if text in (line[0], line[2]):
            return int(line[2])
    if not text.isdigit():
        raise InvalidError(f"run as the group {text!r}", "no such group in the image's /etc/group")
    return int(text)


def _lines(path: str, fields: int) -> list[list[str]]:
    """Return the well-formed lines of a file of colon-separated fields; none if it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        text = os.read(fd, _MOST).decode(errors="replace")
    finally:
        os.close(fd)
    found = [line.split(":") for line in text.split("\n")]
    return [line for line in found if len(line) == fields and line[2].isdigit()]


def become(user: User, *, streams: tuple[int, ...]) -> None:
    """Change to a user for good, after giving the user its streams.

    `streams` are pipes and terminals that were created for the command.
    """
    if user.uid == user.gid == 0:
        return  # nothing to change; a user namespace may not even allow to set groups
    try:
        for fd in streams:
            os.fchown(fd, user.uid, -1)
        os.setgroups(user.groups)
        os.setgid(user.gid)
        os.setuid(user.uid)
    except OSError as error:
        raise UnsupportedError(
            f"run as uid {user.uid}, gid {user.gid}",
            str(error.strerror),
            "the user namespace does not map these IDs, for lack of subordinate IDs (/etc/subuid)",
            "-u 0, which runs the command as root of the container",
        ) from error
