"""Commands on images and on the files of containers."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runtime.cli import output
from runtime.cli.base import (
    CONTAINER,
    QUIET,
    REFERENCE,
    TABLE_FORMAT,
    command,
    flag,
    for_each,
    option,
    print_line,
    repeated,
)
from runtime.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from runtime.engine import Engine

_STDIO: Final = "-"
_IMAGE: Final = option("image", metavar="IMAGE", help=REFERENCE)
_IMAGES: Final = option("images", nargs="+", metavar="IMAGE", help=REFERENCE)
_OUTPUT: Final = option(
    "-o",
    "--output",
    default=_STDIO,
    metavar="FILE",
    help="write to FILE (default: standard output)",
)
_MESSAGE: Final = option("-m", "--message", default="", help="message in the image's history")
_CHANGE: Final = repeated(
    *("-c", "--change"),
    metavar="LINE",
    help="Dockerfile instruction to apply: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, "
    "USER or WORKDIR",
)
_NAME: Final = option(
    "name",
    nargs="?",
    default="",
    metavar="NAME",
    help="name of the new image: REPOSITORY[:TAG] (default: none)",
)


# --- images ----------------------------------------------------------------------


@command(
    "images",
    QUIET,
    flag("--no-trunc", help="print IDs in full"),
    TABLE_FORMAT,
    option(
        "name",
        nargs="?",
        default="",
        metavar="REPOSITORY[:TAG]",
        help="list only images with this name",
    ),
)
def images(engine: Engine, arguments: argparse.Namespace) -> int:
    """List images."""
    from runtime.image.config import split_reference

    found = [
        item
        for item in engine.images.all()
        if arguments.name in ("", item.name, split_reference(item.name)[0])
    ]
    items = [output.images(item, trunc=not arguments.no_trunc) for item in found]
    if arguments.quiet:
        for identity in dict.fromkeys(item["ID"] for item in items):
            print_line(identity)
    else:
        headings = output.IMAGE_HEADINGS
        output.listing(arguments.format, headings, headings, items)
    return 0


@command(
    "load",
    option(
        "-i",
        "--input",
        default=_STDIO,
        metavar="FILE",
        help="read from FILE (default: standard input)",
    ),
    flag("-q", "--quiet", help="do not print the loaded images"),
)
def load(engine: Engine, arguments: argparse.Namespace) -> int:
    """Load the images of an archive.

    Reads archives of `docker save`, `podman save`, `skopeo copy` and `mydocker save`: in Docker's
    or OCI's layout, plain or compressed with gzip. Every digest is checked, and an archive
    with any error changes nothing.
    """
    with _read(arguments.input) as (file, shown):
        found = engine.images.load(file, shown=shown)
    if not arguments.quiet:
        for item in found:
            for name in item.names:
                print_line(f"Loaded image: {name}")
            if not item.names:
                print_line(f"Loaded image ID: sha256:{item.identity}")
    return 0


@command("save", _OUTPUT, _IMAGES)
def save(engine: Engine, arguments: argparse.Namespace) -> int:
    """Save images to an archive.

    The archive is in Docker's and in OCI's layout at once, with all layers and names.
    """
    _write(engine.images.save(arguments.images), arguments.output)
    return 0


@command(
    "import",
    _MESSAGE,
    option(
        "file",
        metavar="FILE|-",
        help="tar archive, plain or compressed with gzip; - is standard input",
    ),
    _CHANGE,
    _NAME,
)
def import_(engine: Engine, arguments: argparse.Namespace) -> int:
    """Create an image from a tar of a root file system.

    Files with an owner outside the user namespace become root's. Devices are refused.
    """
    with _read(arguments.file) as (file, shown):
        identity = engine.images.import_root(
            file,
            arguments.name,
            shown=shown,
            comment=arguments.message,
            changes=arguments.change,
        )
    print_line(f"sha256:{identity}")
    return 0


@command(
    "commit",
    option("-a", "--author", default="", help="author of the image"),
    _MESSAGE,
    CONTAINER,
    _CHANGE,
    _NAME,
)
def commit(engine: Engine, arguments: argparse.Namespace) -> int:
    """Create an image from a container's files."""
    identity = engine.inside.commit(
        arguments.container,
        arguments.name,
        author=arguments.author,
        comment=arguments.message,
        lines=arguments.change,
    )
    print_line(f"sha256:{identity}")
    return 0


@command(
    "tag",
    _IMAGE,
    option("name", metavar="NAME", help="new name: REPOSITORY[:TAG]; replaces an existing tag"),
)
def tag(engine: Engine, arguments: argparse.Namespace) -> int:
    """Add a name to an image."""
    engine.images.tag(arguments.image, arguments.name)
    return 0


@command(
    "rmi",
    flag("-f", "--force", help="remove all names of an image, even if containers use it"),
    _IMAGES,
)
def rmi(engine: Engine, arguments: argparse.Namespace) -> int:
    """Remove names of images, and images whose last name is removed."""
    return for_each(arguments.images, lambda item: _removed(engine, item, arguments.force))


def _removed(engine: Engine, reference: str, force: bool) -> str:  # noqa: FBT001 - private
    removed = engine.images.remove(reference, force=force)
    lines = [f"Untagged: {name}" for name in removed.names]
    lines += [f"Deleted: sha256:{digest}" for digest in [*removed.images, *removed.layers]]
    return "\n".join(lines)


# --- files of containers ---------------------------------------------------------


@command("diff", CONTAINER)
def diff(engine: Engine, arguments: argparse.Namespace) -> int:
    """List the changes to a container's files.

    Prints one path per line after A (added), C (changed) or D (deleted).
    """
    for change in engine.inside.diff(arguments.container):
        sys.stdout.buffer.write(os.fsencode(f"{change.kind} {change.path}\n"))
    return 0


@command("export", _OUTPUT, CONTAINER)
def export(engine: Engine, arguments: argparse.Namespace) -> int:
    """Export a container's files as a tar.

    Mounts such as volumes are left out.
    """
    _write(engine.inside.export(arguments.container), arguments.output)
    return 0


@command(
    "cp",
    flag("-a", "--archive", help="keep owners (default: root owns the files)"),
    flag("-L", "--follow-link", help="follow a symbolic link in SOURCE"),
    option("source", metavar="SOURCE", help="CONTAINER:PATH, PATH or -"),
    option("target", metavar="TARGET", help="CONTAINER:PATH, PATH or -"),
)
def cp(engine: Engine, arguments: argparse.Namespace) -> int:
    """Copy files into a container or out of it.

    Either SOURCE or TARGET is CONTAINER:PATH, the other is a path of the host, or - for a
    tar. In an existing target directory the copy keeps its name. If SOURCE ends in /., only
    the content of the directory is copied. Symbolic links never lead out of the container.
    Volumes are visible while the container runs.
    """
    source, target = _container_path(arguments.source), _container_path(arguments.target)
    follow, archive = arguments.follow_link, arguments.archive
    match source, target:
        case (container, path), str(here) if here == _STDIO:
            _write(engine.inside.pack(container, path, follow=follow), _STDIO)
        case (container, path), str(here):
            engine.inside.copy_out(container, path, here, follow=follow, archive=archive)
        case str(here), (container, path) if here == _STDIO:
            with _read(_STDIO) as (file, _):
                engine.inside.unpack(file, container, path, archive=archive)
        case str(here), (container, path):
            engine.inside.copy_in(here, container, path, follow=follow, archive=archive)
        case _:
            raise InvalidError(
                f"copy {arguments.source} to {arguments.target}",
                "exactly one of source and target must be CONTAINER:PATH",
                remedy="mydocker cp web:/etc/hosts .",
            )
    return 0


def _container_path(text: str) -> tuple[str, str] | str:
    """Return container and path of `CONTAINER:PATH`, or a path of the host unchanged.

    A path such as `./one:two` is a path of the host.
    """
    container, colon, path = text.partition(":")
    if not colon or not container or "/" in container or container.startswith("."):
        return text
    return container, path if path.startswith("/") else f"/{path}"


# --- standard streams and files --------------------------------------------------


@contextmanager
def _read(path: str) -> Iterator[tuple[io.RawIOBase, str]]:
    """Open a file or standard input; yield it and its name for messages."""
    if path == _STDIO:
        if os.isatty(0):
            raise InvalidError(
                "read an archive", "standard input is a terminal", remedy="mydocker load -i FILE"
            )
        with open(0, "rb", buffering=0, closefd=False) as file:
            yield file, "standard input"
        return
    try:
        opened = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise NotFoundError(f"read {path}", str(error.strerror)) from None
    with opened:
        yield opened, path


def _write(pieces: Iterable[bytes], path: str) -> None:
    """Write to standard output, or to a file that appears when it is complete."""
    if path == _STDIO:
        if os.isatty(1):
            raise InvalidError(
                "write an archive", "standard output is a terminal", remedy="-o FILE, or > FILE"
            )
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    replaced = os.path.isfile(path) or not os.path.exists(path)  # no FIFO and no device
    scratch = f"{path}.{os.getpid()}.new" if replaced else path
    try:
        file = open(scratch, "xb" if replaced else "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise NotFoundError(f"write {path}", str(error.strerror)) from None
    try:
        with file:
            file.writelines(pieces)
        if replaced:
            os.rename(scratch, path)
    except BaseException:
        if replaced:
            os.unlink(scratch)
        raise


COMMANDS: Final = (
    *(images, load, save, import_, commit, tag, rmi),
    *(diff, export, cp),
)
