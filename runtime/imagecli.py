"""What the commands about images, and about files in containers, do."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from runtime import references, shape
from runtime.console import each, say
from runtime.engine import Engine
from runtime.errors import InvalidError, NotFoundError

_HERE: Final = "-"


# --- images ----------------------------------------------------------------------


def _images(engine: Engine, arguments: argparse.Namespace) -> int:
    found = engine.images.all()
    if arguments.name:
        wanted, exact = arguments.name, arguments.name == ":".join(references.split(arguments.name))
        found = [
            item
            for item in found
            if wanted == (item.name if exact else references.split(item.name)[0])
        ]
    short = None if arguments.no_trunc else 12
    if arguments.quiet:
        for identity in dict.fromkeys(item.id for item in found):
            say(identity[:short] if short else f"sha256:{identity}")
    else:
        rows = [shape.image_row(item, trunc=bool(short)) for item in found]
        if arguments.format:
            items = [dict(zip(shape.IMAGE_HEADINGS, row, strict=True)) for row in rows]
            shape.listing(arguments.format, shape.IMAGE_HEADINGS, items)
        else:
            shape.table([*shape.IMAGE_HEADINGS.values()], rows)
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
