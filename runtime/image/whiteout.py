"""Whiteouts: entries of a layer that remove files of the layers below.

In a tar an empty file `.wh.NAME` removes NAME, and `.wh..wh..opq` removes everything in its
directory (OCI image specification, "Image Layer Filesystem Changeset"). On disk overlayfs needs a
character device 0:0 called NAME, or an extended attribute of the directory
(Documentation/filesystems/overlayfs.rst). Both can be created in a user namespace: the device since
Linux 5.8, and `user.*` attributes replace the `trusted.*` ones that only the host's root may set.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from linux.syscalls import in_user_namespace

PREFIX: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
RESERVED: Final = ".wh..wh."
"""Prefix of names that AUFS used internally and that old layers still have."""


def attribute() -> str:
    """Return the extended attribute that marks an opaque directory in this namespace."""
    return f"{'user' if in_user_namespace() else 'trusted'}.overlay.opaque"


def is_whiteout(status: os.stat_result) -> bool:
    """Return True for an overlayfs whiteout."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make(directory: int, name: str) -> None:
    """Create a whiteout of `name` in an open directory."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def is_opaque(directory: int, mark: str) -> bool:
    """Return True if an open directory hides the files of lower layers.

    `mark` is the extended attribute that `attribute()` returns.
    """
    try:
        return os.getxattr(directory, mark) == b"y"
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return False


def make_opaque(directory: int, mark: str) -> None:
    """Hide the files of lower layers in an open directory.

    Whiteouts in the directory are removed: they have no effect any more, and overlayfs would list
    them.
    """
    os.setxattr(directory, mark, b"y")
    with os.scandir(directory) as found:
        for item in found:
            if is_whiteout(item.stat(follow_symlinks=False)):
                os.unlink(item.name, dir_fd=directory)
