"""Looking into a container's files from outside: `diff`, `cp`, `export`, `commit`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from runtime import changes, container, copy, instructions, intake, views
from runtime.changes import Change
from runtime.copy import Side
from runtime.errors import ConflictError
from runtime.images import Images
from runtime.lifecycle import Lifecycle
from runtime.pack import Packer
from runtime.records import Container
from runtime.rootfs import Rootfs
from runtime.tarball import Readable

_OUR_OWN: Final = ("HOSTNAME", "HOME", "TERM")
"""Variables that say something about one container only."""


class Inside:
    """Looks into the containers of one store."""

    def __init__(self, life: Lifecycle, images: Images) -> None:
        self._life, self._images = life, images

    # --- roots ---------------------------------------------------------------

    @contextmanager
    def _root(self, reference: str, *, whole: bool) -> Iterator[int]:
        """An open root directory of a container, which cannot start or go away unnoticed.

        With `whole` also what a running one has mounted, such as its volumes.
        """
        with self._life.held(reference) as found:
            if not found.running:
                root = views.resting(self._made_of(found))
                try:
                    yield root
                finally:
                    os.close(root)
                return
            root = self._running(found, whole=whole)
        try:
            yield root  # which stays what it is, whatever becomes of the container
        finally:
            os.close(root)

    @staticmethod
    def _running(found: Container, *, whole: bool) -> int:
        handle = container.pidfd(found.state.pid, found.state.born)
        if handle is None:
            raise ConflictError(f"look into container {found.name!r}", "it just stopped")
        try:
            return views.running(handle, whole=whole)
        finally:
            os.close(handle)

    def _made_of(self, found: Container) -> Rootfs:
        layers = self._images.of(found.config).layers
        return container.rootfs(self._life.store.directory(found.id), layers)

    # --- what the commands do ------------------------------------------------

    def diff(self, reference: str) -> list[Change]:
        """Every path that a container has added, changed or deleted, parents first."""
        with self._life.held(reference) as found, intake.explained(f"compare {found.name}"):
            made_of = self._made_of(found)
            lower = views.lower(made_of)
            upper = os.open(made_of.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return list(changes.changes(upper, lower))
            finally:
                os.close(upper)
                os.close(lower)

    def export(self, reference: str) -> Iterator[bytes]:
        """The pieces of a tar of all its files, without what is mounted in it."""
        with self._root(reference, whole=False) as root, intake.explained(f"export {reference}"):
            yield from Packer(layer=False).pack(root)

    def commit(
        self,
        reference: str,
        name: str = "",
        *,
        author: str = "",
        comment: str = "",
        lines: Sequence[str] = (),
    ) -> str:
        """Make an image of a container's files as they are; its id.

        What the container was asked to be becomes the image's default, changed by
        `lines` of a Dockerfile. One that runs goes on meanwhile.
        """
        with self._life.held(reference) as found:
            image = self._images.of(found.config)
            upper = f"{self._life.store.directory(found.id)}/upper"
            config = instructions.apply(self._config(found), lines)
            return self._images.commit(image, upper, name, config, author=author, comment=comment)

    def _config(self, found: Container) -> dict[str, Any]:
        config, defaults = found.config, self._images.of(found.config).defaults
        env = [
            item
            for item in config.env
            if item in defaults.env or item.partition("=")[0] not in _OUR_OWN
        ]
        return {
            "Env": env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.command[len(config.entrypoint) :],
            "WorkingDir": config.workdir,
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed},
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
        }

    def copy_out(
        self,
        reference: str,
        path: str,
        destination: str,
        *,
        follow: bool = False,
        archive: bool = False,
    ) -> None:
        """Copy a file or directory of a container to this machine; see `copy.copy`."""
        with self._root(reference, whole=True) as root, _machine() as machine:
            source = Side(root, path, f"{reference}:{path}")
            target = Side(machine, _absolute(destination), destination)
            with _copied(f"copy {source.shown} to {destination}"):
                copy.copy(source, target, follow=follow, archive=archive)

    def copy_in(
        self,
        origin: str,
        reference: str,
        path: str,
        *,
        follow: bool = False,
        archive: bool = False,
    ) -> None:
        """Copy a file or directory of this machine into a container."""
        with self._root(reference, whole=True) as root, _machine() as machine:
            source = Side(machine, _absolute(origin), origin)
            target = Side(root, path, f"{reference}:{path}")
            with _copied(f"copy {origin} to {target.shown}"):
                copy.copy(source, target, follow=follow, archive=archive)

    def pack(self, reference: str, path: str, *, follow: bool = False) -> Iterator[bytes]:
        """A file or directory of a container as the pieces of a tar."""
        shown = f"{reference}:{path}"
        with self._root(reference, whole=True) as root, intake.explained(f"copy {shown}"):
            yield from copy.pack(Side(root, path, shown), follow=follow)

    def unpack(self, tar: Readable, reference: str, path: str, *, archive: bool = False) -> None:
        """Take a tar into a directory of a container."""
        shown = f"{reference}:{path}"
        with self._root(reference, whole=True) as root, _copied(f"copy to {shown}"):
            copy.unpack(tar, Side(root, path, shown), archive=archive)


def _copied(asked: str) -> AbstractContextManager[None]:
    """A copy goes where it is to be, piece by piece."""
    return intake.explained(asked, kept="what came before that is there")


@contextmanager
def _machine() -> Iterator[int]:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)


def _absolute(path: str) -> str:
    """A path below the working directory, its end kept: `/` and `/.` at the end mean something."""
    return path if path.startswith("/") else f"{os.getcwd()}/{path}"
