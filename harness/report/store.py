"""The files of a report; each file is written completely or not at all."""

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
    """Return `report` as partial, with `why` added to its reasons."""
    return dataclasses.replace(report, partial=(*report.partial, why), exit=report.exit or 1)


def write(report: Report, directory: Path) -> None:
    """Write all files of the report. Raises `OSError`.

    `report.json` is written first and marks the report as partial. The final `report.json` replaces
    it after all other files.
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
    """Replace an earlier report by `report`, the report of a run that has just begun.

    If the run is killed, this report remains, not the report of an earlier successful run. Raises
    `OSError` if the disk has no space even without the earlier report.
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
    """Remove the evidence that earlier runs wrote before the time `before`. Raises `OSError`.

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
    """Return the report of the folder `own` with its evidence paths changed for a page in `folder`.

    The paths become relative to `folder`. Paths that lead out of `folder` are dropped.
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
    """Copy the evidence of the report in the folder `own` to `directory`. Raises `OSError`."""
    source, target = own / EVIDENCE, directory / EVIDENCE
    if source.is_dir() and source.resolve() != target.resolve():
        shutil.copytree(
            source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(INDEX)
        )


def bring_evidence(report: Report, own: Path, target: Path) -> Report:
    """Copy the evidence from `own` to `target`, and return the report for the folder `target`.

    If the evidence of a failure cannot be copied, the failure names its original folder.
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
    """Append the summary to the step summary of GitHub Actions, if any. Raises `OSError`."""
    if path := os.environ.get(STEP_SUMMARY):
        with open(path, "a", encoding="utf-8") as file:
            file.write(markdown.render(report))


def replace(path: Path, text: str) -> None:
    """Replace the content of a file atomically. Raises `OSError`."""
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

    The file is read if it exists. Raises `BadExpectations`, whose message begins with the path of
    the file.
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
    """Make a folder, and check that its disk has space for a file. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):  # if it is not a folder, the file below fails
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(b"room")
