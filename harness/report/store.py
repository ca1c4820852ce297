"""The files of a report: each is whole or not there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.report import expectations, failure_links, schema
from harness.report.expectations import BadExpectations, Deviation
from harness.report.failure_links import AGAIN, EVIDENCE, EVIDENCE_FILES, INDEX, STATES
from harness.report.render import badge, html, junit, markdown
from harness.report.sanitize import plain
from harness.report.schema import Failure, Report, Section

JUNIT, SUMMARY, BADGE, PAGE = "junit.xml", "summary.md", "badge.json", "index.html"
NAMES = (schema.NAME, JUNIT, SUMMARY, BADGE, PAGE)
UNFINISHED = "not all files of the report could be written"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable in which GitHub Actions names the file that a summary is appended to."""


def cut_short(report: Report, why: str) -> Report:
    """`report`, which is partial for one reason more."""
    return dataclasses.replace(report, partial=(*report.partial, why), exit=report.exit or 1)


def write(report: Report, directory: Path) -> None:
    """Every form of the report. Raises `OSError`.

    `report.json` comes first and says that it is partial, until all the others are there.
    """
    unfinished = cut_short(report, UNFINISHED)
    directory.mkdir(parents=True, exist_ok=True)
    replace(directory / schema.NAME, schema.dumps(unfinished))
    try:
        replace(directory / JUNIT, junit.render(report))
        replace(directory / SUMMARY, markdown.render(report))
        replace(directory / BADGE, badge.render(report))
        replace(directory / PAGE, html.render([report]))
        if index := failure_links.index(report, EVIDENCE):
            (directory / EVIDENCE).mkdir(exist_ok=True)
            replace(directory / EVIDENCE / INDEX, index)
        replace(directory / schema.NAME, schema.dumps(report))
    except OSError:
        _remove_others(directory)  # they do not say that something is missing
        raise


def announce(report: Report, directory: Path) -> None:
    """Put `report`, of a run that has just begun, in place of what an earlier run has left.

    A run that is killed leaves that, and not the earlier one's success. Raises `OSError`,
    where there is no room even without the earlier one.
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
    """Take away the evidence that was written before a time: an earlier run's. Raises `OSError`.

    Only files that evidence is made of; a folder with anything else in it stays.
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
        with contextlib.suppress(OSError):  # somebody has put something else there
            (folder / "state").rmdir()
            folder.rmdir()


def seen_from(report: Report, own: Path, place: Path) -> Report:
    """`report`, which lies in the folder `own`, for a page in the folder `place`.

    Its evidence is named by the way from there, or not at all where that leads upwards.
    """
    try:
        way = own.resolve().relative_to(place.resolve())
    except ValueError:
        way = None

    def moved(failure: Failure) -> Failure:
        if way is None or failure.evidence is None:
            return dataclasses.replace(failure, evidence=None, files=())
        return dataclasses.replace(failure, evidence=(way / failure.evidence).as_posix())

    return _with_failures(report, moved)


def copy_evidence(own: Path, directory: Path) -> None:
    """Have the evidence of the report in `own` in `directory` too. Raises `OSError`."""
    source, target = own / EVIDENCE, directory / EVIDENCE
    if source.is_dir() and source.resolve() != target.resolve():
        shutil.copytree(
            source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(INDEX)
        )


def bring_evidence(report: Report, own: Path, place: Path) -> Report:
    """`report` for the folder `place`, whose evidence lies in the folder `own`: copied.

    A failure whose evidence cannot be says where that is.
    """

    def brought(failure: Failure) -> Failure:
        found = failure.evidence
        if found is None or not (own / found).is_dir():
            return failure
        try:
            shutil.copytree(own / found, place / found, symlinks=True, dirs_exist_ok=True)
        except OSError as error:
            shutil.rmtree(place / found, ignore_errors=True)  # the report needs room more
            # It gathers what failed: what, whereto and why, of which the first is enough.
            why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
            told = f"is in {own / found}, for it could not be copied: {why}"
            sections = (*failure.sections, Section(title=EVIDENCE, text=plain(told)))
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
    """One page about several reports. Raises `OSError`."""
    replace(file, html.render(reports))


def append_step_summary(report: Report) -> None:
    """Append the summary to what GitHub Actions shows of a job, if it does. Raises `OSError`."""
    if path := os.environ.get(STEP_SUMMARY):
        with open(path, "a", encoding="utf-8") as file:
            file.write(markdown.render(report))


def replace(path: Path, text: str) -> None:
    """Write a file at once: a reader finds the old one or the new one. Raises `OSError`."""
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
