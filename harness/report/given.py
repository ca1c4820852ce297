"""What a run is given by path, made sure of before it begins: what it reads, where it writes."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from harness import expectations
from harness.expectations import BadExpectations, Deviation


def listed(path: Path) -> tuple[tuple[Deviation, ...], str]:
    """What an expectation file lists, and its text. Raises `BadExpectations`, with its name."""
    try:
        text = path.read_text(encoding="utf-8")
        return expectations.loads(text), text
    except FileNotFoundError as error:
        raise BadExpectations(
            f"{path}: there is no such file; --write-expect writes one"
        ) from error
    except OSError as error:
        raise BadExpectations(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, BadExpectations) as error:
        raise BadExpectations(f"{path}: {error}") from error


def make_room(path: Path) -> None:
    """Make the folder of an expectation file that is to be written; one that is there is read.

    Raises `BadExpectations`, with its name, where it could not be written in the end.
    """
    try:
        there = path.exists()
        if there and not path.is_file():  # a device would be replaced, and a pipe waited for
            raise BadExpectations(f"{path}: it is no file")
        make_folder(path.parent)
    except OSError as error:
        raise BadExpectations(f"{path}: {error.strerror or error}") from error
    if there:
        listed(path)


def make_folder(directory: Path) -> None:
    """Make a folder, and try whether there is room for a file in it. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):  # what is there is no folder: the file tells
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(b"room")
