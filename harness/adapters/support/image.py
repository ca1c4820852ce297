"""Image of the test containers of all runtimes: mydocker's `base`, as an archive.

mydocker assembles the image from files of this machine and saves it in the format of `docker load`
(https://github.com/moby/docker-image-spec/blob/main/spec.md). No image is pulled, and all runtimes
run the same files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from harness.adapters.protocol import HostHandle, RuntimeBroken

NAME: Final = "base"
ARCHIVE: Final = "/run/netmodes/base.tar"
"""The path of the archive in the host."""
_ROOT: Final = "/run/netmodes/images"
_PACKAGES: Final = str(Path(__file__).parents[3])


def archive(host: HostHandle) -> str:
    """Return the path of the archive in the host, and create the archive if necessary."""
    words = [sys.executable, "-m", "runtime", "save", "-o", ARCHIVE, NAME]
    done = host.run(words, env={"PYTHONPATH": _PACKAGES, "MYDOCKER_ROOT": _ROOT})
    if done.returncode:
        raise RuntimeBroken(
            f"cannot create the test image: mydocker printed {done.stderr.strip()!r}. "
            "Run `mydocker save -o base.tar base` to see the error"
        )
    host.call(os.chmod, ARCHIVE, 0o644)  # an ordinary user loads it too
    return ARCHIVE
