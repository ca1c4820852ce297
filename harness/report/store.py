"""The files of a report; each is written completely or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.report import expectations, failure_links, schema
from harness.report.expectations import BadExpectations
from harness.report.failure_links import AGAIN, EVIDENCE, EVIDENCE_FILES, INDEX, STATES
from harness.report.render import html, junit, markdown
from harness.report.sanitize import plain
from harness.report.schema import Failure, Report, Section

JUNIT, SUMMARY, BADGE, PAGE = "junit.xml", "summary.md", "badge.json", "index.html"
NAMES = (schema.NAME, JUNIT, SUMMARY, BADGE, PAGE)
UNFINISHED = "not all files of the report could be written"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The environment variable with the path of GitHub's step summary."""


def as_partial(report: Report, why: str) -> Report:
    """Return `report` with another reason why it is partial."""
    return dataclasses.replace(report, partial=(*report.partial, why), exit=report.exit or 1)


def write(report: Report, directory: Path) -> None:
    """Write all files of the report. Raises `OSError`.

    `report.json` comes first and says that the report is partial until all other files are written.
    """
    unfinished = as_partial(report, UNFINISHED)
    directory.mkdir(parents=True, exist_ok=True)
    replace(directory / schema.NAME, schema.dumps(unfinished))
    try:
        replace(directory / JUNIT, junit.render(report))
        replace(directory / SUMMARY, markdown.render(report))
        replace(directory / BADGE, markdown.badge(report))
        replace(directory / PAGE, html.render([report]))
        if index := failure_links.index(report, EVIDENCE):
            (directory / EVIDENCE).mkdir(exist_ok=True)
            replace(directory / EVIDENCE / INDEX, index)
        replace(directory / schema.NAME, schema.dumps(report))
    except OSError:
        _remove_others(directory)  # these files cannot say that the report is partial
        raise


def begin(report: Report, directory: Path) -> None:
    """Replace an earlier report by `report`, of a run that has just begun.

    A run that is killed leaves this report, and not the success of an earlier run. Raises `OSError`
    if the disk has no space even without the earlier report.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        replace(directory / schema.NAME, schema.dumps(report))
    except OSError:
        (directory / schema.NAME).unlink(missing_ok=True)
        _remove_others(directory)
        replace(directory / schema.NAME, schema.dumps(report))
    else:
        _remove_others(directory)


def _remove_others(directory: Path) -> None:
    for name in NAMES[1:]:
        (directory / name).unlink(missing_ok=True)


def remove_evidence(directory: Path, *, before: float) -> None:
    """Remove the evidence of earlier runs, from before a time. Raises `OSError`.

    Only evidence files are removed; a folder with other files stays.
    """
    index = directory / EVIDENCE / INDEX
    if index.is_file() and index.stat().st_mtime < before:
        index.unlink()
    for again in directory.glob(f"{EVIDENCE}/*/{AGAIN}"):
        folder = again.parent
        if folder.is_symlink() or again.stat().st_mtime >= before:
            continue
        for file in (*folder.glob(STATES), *map(folder.joinpath, EVIDENCE_FILES)):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it has other files
            (folder / "state").rmdir()
            folder.rmdir()


def relocated(report: Report, own: Path, folder: Path) -> Report:
    """Return `report` from the folder `own` for a page in `folder`.

    The evidence paths become relative to `folder`, or are dropped if they lead outside of it.
    """
    try:
        way = own.resolve().relative_to(folder.resolve())
    except ValueError:
        way = None

    def moved(failure: Failure) -> Failure:
        if way is None or failure.evidence is None:
            return dataclasses.replace(failure, evidence=None, files=())
        return dataclasses.replace(failure, evidence=(way / failure.evidence).as_posix())

    return _with_failures(report, moved)


def copy_evidence(own: Path, directory: Path) -> None:
    """Copy the evidence of the report in `own` to `directory`. Raises `OSError`."""
    source, target = own / EVIDENCE, directory / EVIDENCE
    if source.is_dir() and source.resolve() != target.resolve():
        shutil.copytree(
            source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(INDEX)
        )


def bring_evidence(report: Report, own: Path, target: Path) -> Report:
    """Copy the evidence from the folder `own` to `target`, and return `report` for `target`.

    A failure whose evidence cannot be copied names the original folder.
    """

    def brought(failure: Failure) -> Failure:
        found = failure.evidence
        if found is None or not (own / found).is_dir():
            return failure
        try:
            shutil.copytree(own / found, target / found, symlinks=True, dirs_exist_ok=True)
        except OSError as error:
            shutil.rmtree(target / found, ignore_errors=True)  # the report needs the space
            # `shutil.Error` lists source, target and reason; the first reason is enough.
            why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
            words = f"is in {own / found}: it could not be copied ({why})"
            sections = (*failure.sections, Section(title=EVIDENCE, text=plain(words)))
            return dataclasses.replace(failure, evidence=None, files=(), sections=sections)
        return failure

    return _with_failures(report, brought)


def _with_failures(report: Report, change: Callable[[Failure], Failure]) -> Report:
    tests = tuple(
        dataclasses.replace(test, failures=tuple(map(change, test.failures)))
        for test in report.tests
    )
    return dataclasses.replace(report, tests=tests)


def write_page(reports: Sequence[Report], file: Path) -> None:
    """Write a page about several reports. Raises `OSError`."""
    replace(file, html.render(reports))


def append_step_summary(report: Report) -> None:
    """Append the summary to GitHub's step summary, if there is one. Raises `OSError`."""
    if path := os.environ.get(STEP_SUMMARY):
        with open(path, "a", encoding="utf-8") as file:
            file.write(markdown.render(report))


def replace(path: Path, text: str) -> None:
    """Replace a file atomically. Raises `OSError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Check that an expectation file can be written, and make its folder.

    Raises `BadExpectations`, with its name. An existing file is read.
    """
    try:
        there = path.exists()
        if there and not path.is_file():  # replacing a device or reading a pipe would be wrong
            raise BadExpectations(f"{path}: not a regular file")
        make_folder(path.parent)
    except OSError as error:
        raise BadExpectations(f"{path}: {error.strerror or error}") from error
    if there:
        expectations.read(path)


def make_folder(directory: Path) -> None:
    """Make a folder and check that its disk has space for a file. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):  # if it is not a folder, the file below fails
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(b"room")
