"""Attacks on the paths that mydocker hides or write-protects: none of them uncovers a path.

A successful attack writes only to settings of the container's own namespaces.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from linux.syscalls import AT_FDCWD, check, libc
from runtime.engine import Engine
from runtime.errors import InvalidError
from tests.runtime.conftest import FOR_EVER

_RENAME_EXCHANGE = 2


def _made(engine: Engine, root: Path, binds: list[str]) -> Path:
    """Create the container web; return the directory with its own files."""
    engine.create("base", FOR_EVER, name="web", network="none", binds=binds)
    upper = root / "containers" / engine.inspect("web").id / "upper"
    upper.mkdir()
    return upper


def _volume(engine: Engine, name: str) -> Path:
    return Path(engine.volumes.create(name).directory)


def test_volume_cannot_provide_the_null_device(engine: Engine, root: Path) -> None:
    """A volume on `/dev` would provide the `/dev/null` that hides paths (CVE-2025-31133)."""
    (_volume(engine, "data") / "null").symlink_to("/proc/self/comm")
    (_made(engine, root, ["data:/data"]) / "data").symlink_to("/dev")
    with pytest.raises(InvalidError, match="the path leads to /dev"):
        engine.start("web")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_image_cannot_redirect_a_kernel_file_system(engine: Engine, root: Path, name: str) -> None:
    """A volume could cover a /proc that is a link to its target (CVE-2019-19921)."""
    upper = _made(engine, root, ["data:/data"])
    (upper / "data").mkdir()
    (upper / name).symlink_to("/data")
    with pytest.raises(InvalidError, match=f"/{name} of the image is no directory"):
        engine.start("web")


@pytest.mark.parametrize("place", ["/proc/sys", "/dev"])
def test_neighbour_cannot_redirect_a_mount(engine: Engine, root: Path, place: str) -> None:
    """A process that shares a volume may exchange mount targets during a start (CVE-2021-30465)."""
    shared = _volume(engine, "shared")
    (shared / "target").mkdir()
    (shared / "link").symlink_to(place)
    (_volume(engine, "mine") / "covered").touch()
    binds = ["shared:/v", "mine:/v/target"]
    with _exchanged(shared / "target", shared / "link"):
        for _ in range(20):
            try:
                web = engine.run("base", FOR_EVER, network="none", binds=binds)
            except InvalidError:
                continue
            assert engine.exec(web.id, ["test", "-e", f"{place}/covered"]).exit_code == 1
            engine.remove(web.id, force=True)


@contextmanager
def _exchanged(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names all the time, in another process."""
    child = os.fork()
    if not child:
        try:
            while True:
                names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
                check(libc.renameat2(*names, _RENAME_EXCHANGE), "renameat2")
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
