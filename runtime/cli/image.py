"""What the commands about images, and about files in containers, do."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from runtime.cli import output
from runtime.cli.base import TABLE, add_command, each, say
from runtime.engine import Engine
from runtime.errors import InvalidError, NotFoundError

_HERE: Final = "-"


# --- images ----------------------------------------------------------------------


def _images(engine: Engine, arguments: argparse.Namespace) -> int:
    from runtime.image.config import split_reference, with_tag

    found = engine.images.all()
    if arguments.name:
        wanted, exact = arguments.name, arguments.name == with_tag(arguments.name)
        found = [
            item
            for item in found
            if wanted == (item.name if exact else split_reference(item.name)[0])
        ]
    short = None if arguments.no_trunc else 12
    if arguments.quiet:
        for identity in dict.fromkeys(item.id for item in found):
            say(identity[:short] if short else f"sha256:{identity}")
    else:
        rows = [output.image_row(item, trunc=bool(short)) for item in found]
        if arguments.format:
            items = [dict(zip(output.IMAGE_HEADINGS, row, strict=True)) for row in rows]
            output.listing(arguments.format, output.IMAGE_HEADINGS, items)
        else:
            output.table([*output.IMAGE_HEADINGS.values()], rows)
    return 0


def _load(engine: Engine, arguments: argparse.Namespace) -> int:
    with _read(arguments.input) as (file, shown):
        found = engine.images.load(file, shown=shown)
    if not arguments.quiet:
        for item in found:
            for name in item.names:
                say(f"Loaded image: {name}")
            if not item.names:
                say(f"Loaded image ID: sha256:{item.identity}")
    return 0


def _save(engine: Engine, arguments: argparse.Namespace) -> int:
    _write(engine.images.save(arguments.images), arguments.output)
    return 0


def _import(engine: Engine, arguments: argparse.Namespace) -> int:
    with _read(arguments.file) as (file, shown):
        identity = engine.images.import_root(
            file,
            arguments.name,
            shown=shown,
            comment=arguments.message,
            changes=arguments.change,
        )
    say(f"sha256:{identity}")
    return 0


def _commit(engine: Engine, arguments: argparse.Namespace) -> int:
    identity = engine.inside.commit(
        arguments.container,
        arguments.name,
        author=arguments.author,
        comment=arguments.message,
        lines=arguments.change,
    )
    say(f"sha256:{identity}")
    return 0


def _tag(engine: Engine, arguments: argparse.Namespace) -> int:
    engine.images.tag(arguments.image, arguments.name)
    return 0


def _rmi(engine: Engine, arguments: argparse.Namespace) -> int:
    return each(arguments.images, lambda item: _removed(engine, item, arguments.force))


def _removed(engine: Engine, reference: str, force: bool) -> str:  # noqa: FBT001 - our own
    removed = engine.images.remove(reference, force=force)
    lines = [f"Untagged: {name}" for name in removed.names]
    lines += [f"Deleted: sha256:{digest}" for digest in [*removed.images, *removed.layers]]
    return "\n".join(lines)


# --- files in containers ---------------------------------------------------------


def _diff(engine: Engine, arguments: argparse.Namespace) -> int:
    for change in engine.inside.diff(arguments.container):
        sys.stdout.buffer.write(os.fsencode(f"{change.kind} {change.path}\n"))
    return 0


def _export(engine: Engine, arguments: argparse.Namespace) -> int:
    _write(engine.inside.export(arguments.container), arguments.output)
    return 0


def _cp(engine: Engine, arguments: argparse.Namespace) -> int:
    source, target = _place(arguments.source), _place(arguments.target)
    follow, archive = arguments.follow_link, arguments.archive
    match source, target:
        case (container, path), str(here) if here == _HERE:
            _write(engine.inside.pack(container, path, follow=follow), _HERE)
        case (container, path), str(here):
            engine.inside.copy_out(container, path, here, follow=follow, archive=archive)
        case str(here), (container, path) if here == _HERE:
            with _read(_HERE) as (file, _):
                engine.inside.unpack(file, container, path, archive=archive)
        case str(here), (container, path):
            engine.inside.copy_in(here, container, path, follow=follow, archive=archive)
        case _:
            raise InvalidError(
                f"copy {arguments.source} to {arguments.target}",
                "one of the two must be in a container, the other must not",
                remedy="mydocker cp web:/etc/hosts .",
            )
    return 0


def _place(text: str) -> tuple[str, str] | str:
    """`CONTAINER:PATH` in its two parts; a path here as it is, also `./one:two`."""
    container, colon, path = text.partition(":")
    if not colon or not container or "/" in container or container.startswith("."):
        return text
    return container, path if path.startswith("/") else f"/{path}"


# --- standard streams and files --------------------------------------------------


@contextmanager
def _read(path: str) -> Iterator[tuple[io.RawIOBase, str]]:
    """A file, or standard input, and what to call it."""
    if path == _HERE:
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
    """Write to standard output, or a file that is there once it is whole."""
    if path == _HERE:
        if os.isatty(1):
            raise InvalidError(
                "write an archive", "standard output is a terminal", remedy="-o FILE, or > FILE"
            )
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:  # a FIFO, a device: there is nothing to replace
            file.writelines(pieces)
        return
    scratch = f"{path}.{os.getpid()}.new"
    try:
        file = open(scratch, "xb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise NotFoundError(f"write {path}", str(error.strerror)) from None
    try:
        with file:
            file.writelines(pieces)
        os.rename(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.unlink(scratch)


ACTIONS: Final[Mapping[str, Callable[[Engine, argparse.Namespace], int]]] = {
    "images": _images,
    "load": _load,
    "save": _save,
    "import": _import,
    "commit": _commit,
    "tag": _tag,
    "rmi": _rmi,
    "diff": _diff,
    "export": _export,
    "cp": _cp,
}


_CHANGE = (
    "a line of a Dockerfile, again for each: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,"
    " STOPSIGNAL, USER, WORKDIR"
)
_NAME = "REPOSITORY[:TAG]; without, the image has an id only"


def images(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that make, name, list and remove images."""
    listing = add_command(commands, "images", "list images")
    listing.add_argument("-q", "--quiet", action="store_true", help="ids only")
    listing.add_argument("--no-trunc", action="store_true", help="ids in full")
    listing.add_argument("--format", default="", metavar="TEMPLATE", help=TABLE)
    listing.add_argument(
        "name", nargs="?", default="", metavar="REPOSITORY[:TAG]", help="only images of this name"
    )
    load = add_command(
        commands,
        "load",
        "load the images of an archive",
        more="It is what `docker save`, `podman save`, `skopeo copy` or `mydocker save` makes: "
        "Docker's layout or OCI's, plain or compressed by gzip. It is not trusted: every "
        "digest is checked, and an archive with anything wrong in it leaves nothing.",
    )
    load.add_argument("-i", "--input", default="-", metavar="FILE", help="else standard input")
    load.add_argument("-q", "--quiet", action="store_true", help="do not name what was loaded")
    save = add_command(
        commands,
        "save",
        "save images as an archive",
        more="It is in Docker's and in OCI's layout at once, with all layers and names.",
    )
    save.add_argument("-o", "--output", default="-", metavar="FILE", help="else standard output")
    save.add_argument("images", nargs="+", metavar="IMAGE", help="name, id or its beginning")
    make = add_command(
        commands,
        "import",
        "make an image of a tar of a root file system",
        more="Owners that this user namespace does not have become root's; devices are refused.",
    )
    make.add_argument("-m", "--message", default="", help="said in the image's history")
    make.add_argument("file", metavar="FILE|-", help="plain or compressed by gzip")
    commit = add_command(commands, "commit", "make an image of a container's files")
    commit.add_argument("-a", "--author", default="", help="said in the image's configuration")
    commit.add_argument("-m", "--message", default="", help="said in the image's history")
    commit.add_argument("container", metavar="CONTAINER", help="name, id or its beginning")
    for maker in (make, commit):
        maker.add_argument(
            "-c", "--change", action="append", default=[], metavar="LINE", help=_CHANGE
        )
        maker.add_argument("name", nargs="?", default="", metavar="NAME", help=_NAME)
    tag = add_command(commands, "tag", "give an image one more name")
    tag.add_argument("image", metavar="IMAGE", help="name, id or its beginning")
    tag.add_argument("name", metavar="NAME", help="REPOSITORY[:TAG]; moved when it is taken")
    remove = add_command(commands, "rmi", "remove images, or one of their names")
    remove.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="all names; an image that a container uses stays without one",
    )
    remove.add_argument("images", nargs="+", metavar="IMAGE", help="name, id or its beginning")


def files(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that look into a container's files."""
    diff = add_command(
        commands,
        "diff",
        "what a container has changed in its image's files",
        more="One path a line, after A for added, C for changed or D for deleted.",
    )
    diff.add_argument("container", metavar="CONTAINER", help="name, id or its beginning")
    export = add_command(
        commands,
        "export",
        "a container's files as a tar",
        more="Without what is mounted in it, such as volumes.",
    )
    export.add_argument("-o", "--output", default="-", metavar="FILE", help="else standard output")
    export.add_argument("container", metavar="CONTAINER", help="name, id or its beginning")
    copy = add_command(
        commands,
        "cp",
        "copy files into a container or out of it",
        more="One of the two is CONTAINER:PATH, the other a path here, or - for a tar. Into a "
        "directory that is there a copy goes under its own name, or its content alone when the "
        "source ends in /. as in web:/etc/. here. Links never lead out of the container. "
        "Volumes are seen while it runs.",
    )
    copy.add_argument(
        "-a", "--archive", action="store_true", help="keep owners; else all is root's"
    )
    copy.add_argument(
        "-L", "--follow-link", action="store_true", help="copy what the source's link points to"
    )
    copy.add_argument("source", metavar="SOURCE", help="CONTAINER:PATH, PATH or -")
    copy.add_argument("target", metavar="TARGET", help="CONTAINER:PATH, PATH or -")
