"""Tests of the expectation file: how it is parsed, checked and written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report import expectations
from harness.report.expectations import (
    BadExpectations,
    Deviation,
    DeviationKind,
    as_version,
    uncovered_version,
)
from harness.report.schema import Verdict
from tests.report.entries import TWO_VERSIONS

ENTRY = """
[[deviation]]
runtime = "docker"
versions = ">=26,<28"
test = "suites/ports/test_reachability.py::test_it"
reason = "a neighbour reaches a port published on 127.0.0.1"
link = "https://github.com/moby/moby/issues/45610"
"""
SAYING = """
[[deviation]]
runtime = "podman"
saying = "failed to bind udp listener on [fd…]:53: IO error"
at_most = 3
reason = "it binds before the address may be used"
"""


UNSUPPORTED = """
[[deviation]]
runtime = "docker"
requirement = "DNS-1"
verdict = "unsupported"
reason = "no resolver"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ENTRY,
            Deviation(
                runtime="docker",
                kind=DeviationKind.TEST,
                id="suites/ports/test_reachability.py::test_it",
                verdict=Verdict.BROKEN,
                versions=">=26,<28",
                reason="a neighbour reaches a port published on 127.0.0.1",
                link="https://github.com/moby/moby/issues/45610",
            ),
        ),
        (
            SAYING + 'verdict = "error"',
            Deviation(
                runtime="podman",
                kind=DeviationKind.SAYING,
                id="failed to bind udp listener on [fd…]:53: IO error",
                verdict=Verdict.ERROR,
                reason="it binds before the address may be used",
                at_most=3,
            ),
        ),
        (
            UNSUPPORTED,
            Deviation(
                runtime="docker",
                kind=DeviationKind.REQUIREMENT,
                id="DNS-1",
                verdict=Verdict.UNSUPPORTED,
                reason="no resolver",
            ),
        ),
    ],
    ids=["test", "saying", "requirement"],
)
def test_expectation_has_subject_reason_and_verdict(text: str, expected: Deviation) -> None:
    """An entry has a subject, a reason and a verdict.

    The default verdict is broken. The entry's versions and link may be absent.
    """
    assert expectations.loads(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[deviation]", "the file is not TOML: Expected "),
        ("[deviation]", "write each entry under [[deviation]], in double brackets"),
        ("[[deviations]]", "unknown tables ['deviations']; the only table is [[deviation]]"),
        (ENTRY + ENTRY + "link = 3", "the file is not TOML: "),
        (
            ENTRY + ENTRY + "cell = 3",
            "deviation 2: give exactly one of requirement, test, cell and saying",
        ),
        (
            ENTRY.replace("test =", "#"),
            "deviation 1: give exactly one of requirement, test, cell and saying",
        ),
        (
            SAYING + 'test = "f::t"',
            "deviation 1: give exactly one of requirement, test, cell and saying",
        ),
        (
            ENTRY + 'reasons = "x"',
            "deviation 1: unknown keys ['reasons']; the keys are ['at_most', ",
        ),
    ],
)
def test_error_for_an_expectation_names_the_entry(text: str, complaint: str) -> None:
    """The error for an invalid expectation names the entry and the correction."""
    with pytest.raises(BadExpectations, match=f"^{re.escape(complaint)}"):
        expectations.loads(text)


@pytest.mark.parametrize(
    ("entry", "old", "new", "complaint"),
    [
        (ENTRY, "reason =", "#", "reason is missing"),
        (ENTRY, "runtime =", "#", "runtime is missing"),
        (ENTRY, '"docker"', '" "', "runtime is missing"),
        (ENTRY, '"docker"', "3", "Expected `str`, got `int` - at `$.runtime`"),
        (
            ENTRY,
            ">=26,<28",
            "26 to 28",
            "versions: Invalid specifier: '26 to 28'; write for example ",
        ),
        (ENTRY, "https:", "file:", "link is not a web address: 'file://github.com/"),
        (ENTRY, "link", "verdict", "Invalid enum value 'https://github.com/"),
        (
            ENTRY,
            "[[d",
            'verdict = "kept"',
            "verdict 'kept' is not one of broken, error, unsupported",
        ),
        (
            ENTRY,
            "[[d",
            'verdict = "unsupported"',
            "only a requirement can have the verdict unsupported",
        ),
        (ENTRY, "[[d", 'chance = "rare"', "Expected `bool`, got `str` - at `$.chance`"),
        (ENTRY, "[[d", "at_most = 3", "only an error pattern (saying) can have at_most"),
        (SAYING, "failed", "\\n", "an error pattern is one line"),
        (
            SAYING,
            "[[d",
            'verdict = "unsupported"',
            "only a requirement can have the verdict unsupported",
        ),
        (SAYING, "[[d", "chance = true", "only a test can have chance"),
        (SAYING, "at_most", "#", "at_most must be the number of tests that the pattern "),
        (SAYING, "= 3", "= 0", "at_most must be the number of tests that the pattern "),
        (SAYING, "= 3", "= true", "Expected `int`, got `bool` - at `$.at_most`"),
    ],
)
def test_error_for_invalid_expectation_has_its_number_its_subject_and_key(
    entry: str, old: str, new: str, complaint: str
) -> None:
    """The error for an invalid expectation names its number, its subject and the key.

    If `old` is `[[d`, the new text follows the entry.
    """
    text = entry + new if old == "[[d" else entry.replace(old, new)
    about = re.escape(complaint)
    with pytest.raises(BadExpectations, match=rf"^deviation 1 \((test|saying) (.|\n)+\): {about}"):
        expectations.loads(text)


@pytest.mark.parametrize(
    "words",
    [
        " ",
        "…",
        "exit status 1",
        "Error: n o t h i n g",
        "cannot … assign … requested … address",
        "c…a…n…n…o…t…a…s…s…i…g…n…i…t…n…o…w",
        "nineteen characters",
    ],
)
def test_unspecific_message_pattern_is_refused(words: str) -> None:
    """A message pattern is refused if no piece of it has enough words of the defect's message."""
    said = f"deviation 1 (saying {words}): the error pattern is too general; quote at least 20 "
    with pytest.raises(BadExpectations, match=f"^{re.escape(said)}"):
        expectations.loads(
            SAYING.replace("failed to bind udp listener on [fd…]:53: IO error", words)
        )


@pytest.mark.parametrize(
    ("entry", "again"),
    [
        (ENTRY, ENTRY.replace("a neighbour", "a peer")),
        (ENTRY, ENTRY.replace(">=26,<28", "<28, >=26") + 'verdict = "error"\nchance = true'),
        (SAYING, SAYING.replace("at_most = 3", "at_most = 4")),
    ],
)
def test_duplicate_expectation_is_refused(entry: str, again: str) -> None:
    """A second entry about the same item is refused, even if its other fields differ."""
    other = ENTRY.replace("test_it", "test_other")
    (about, _) = expectations.loads(entry + other)
    said = f"deviation 3 ({about}): it repeats deviation 1; remove one"
    with pytest.raises(BadExpectations, match=f"^{re.escape(said)}$"):
        expectations.loads(entry + other + again)


@pytest.mark.parametrize(
    "entries",
    [
        ENTRY + ENTRY.replace(">=26,<28", ">=28"),
        ENTRY + ENTRY.replace('"docker"', '"podman"'),
        ENTRY + ENTRY.replace("test =", "requirement ="),
        ENTRY + ENTRY.replace("versions =", "# versions ="),
        SAYING + SAYING + 'verdict = "error"',
    ],
)
def test_entries_with_one_different_field_are_accepted(entries: str) -> None:
    """Entries that differ in version, runtime, kind or a pattern's verdict are accepted."""
    assert len(expectations.loads(entries)) == 2


BOUND = "failed to bind udp listener on [fd63:1::1]:53: IO error"


@pytest.mark.parametrize(
    ("text", "does"),
    [
        (BOUND, True),
        (f"Error: no start\n  server {BOUND}: it is tentative\n", True),
        (BOUND.replace("63:1::1", ""), True),
        (BOUND.replace("udp", "tcp"), False),
        (BOUND.replace("63:1", "63\n1"), False),
        (BOUND.upper(), False),
        (f"]:53: IO error, {BOUND.partition(']')[0]}", False),
        ("", False),
    ],
)
def test_message_pattern_matches_within_a_line(text: str, *, does: bool) -> None:
    """The `…` in a message pattern matches any text within one line."""
    (found,) = expectations.loads(SAYING)
    assert found.says(text) == does


def test_entry_about_a_test_is_no_message_pattern() -> None:
    """An entry about test A does not excuse test B whose failure message mentions A."""
    (found,) = expectations.loads(ENTRY)
    assert not found.says(found.id)


PIECES = st.lists(st.text(st.characters(exclude_characters="…\n")), min_size=1, max_size=4)


@given(PIECES, st.data())
def test_message_pattern_matches_any_text_between_pieces(
    pieces: list[str], data: st.DataObject
) -> None:
    """A message pattern matches a message with other text around its pieces, or with more lines."""
    within = st.text(st.characters(exclude_characters="\n"), max_size=9)
    text = "".join(data.draw(within) + piece for piece in pieces)
    saying = Deviation(runtime="acme", kind=DeviationKind.SAYING, id="…".join(pieces), at_most=1)
    assert saying.says(data.draw(st.text()) + "\n" + text + data.draw(within) + "\n")


WRITTEN = """\
# Known deviations, see docs/gate.md. `--write-expect` sorts this file.

[[deviation]]
runtime = "acme"
cell = "the cast: a → b icmp/4"
verdict = "broken"
reason = "known"

[[deviation]]
runtime = "docker"
versions = ">=26,<28"
test = "suites/ports/test_reachability.py::test_it"
verdict = "broken"
chance = true
reason = "a neighbour reaches a port published on 127.0.0.1"
link = "https://github.com/moby/moby/issues/45610"

[[deviation]]
runtime = "podman"
saying = "failed to bind udp listener on [fd…]:53: IO error"
verdict = "error"
at_most = 3
reason = "it binds before the address may be used"
"""


def test_written_expectation_file_is_readable() -> None:
    """A written expectation file has a heading and ordered entries, without empty fields."""
    assert expectations.dumps(reversed(expectations.loads(WRITTEN))) == WRITTEN


WORDS = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
COMMON = {
    "runtime": WORDS,
    "verdict": st.sampled_from([Verdict.BROKEN, Verdict.ERROR]),
    "versions": st.sampled_from(["", "==1.2", ">=26,<28"]),
    "reason": WORDS,
    "link": st.sampled_from(["", "https://example.com/1"]),
}
DEVIATIONS = st.builds(
    Deviation,
    kind=st.sampled_from([kind for kind in DeviationKind if kind is not DeviationKind.SAYING]),
    id=WORDS,
    **COMMON,
) | st.builds(
    Deviation,
    kind=st.just(DeviationKind.SAYING),
    id=st.text(st.characters(exclude_characters="\n"), max_size=9).map(
        "{} said by no other defect: …".format
    ),
    at_most=st.integers(1, 99),
    **COMMON,
)


@settings(deadline=None)
@given(st.lists(DEVIATIONS, unique_by=lambda item: item.key[:4]), st.randoms())
def test_same_deviations_give_the_same_expectation_file(
    found: list[Deviation], random: object
) -> None:
    """The same deviations in any order give the same expectation file.

    Reading the file returns the same deviations.
    """
    text = expectations.dumps(found)
    assert sorted(expectations.loads(text), key=lambda item: item.key) == sorted(
        found, key=lambda item: item.key
    )
    random.shuffle(found)  # type: ignore[attr-defined] # hypothesis' own kind of Random
    assert expectations.dumps(found) == text


@pytest.mark.parametrize(
    ("version", "concerned"),
    [
        ("26.1.5", True),
        ("26.1.5+dfsg1", True),
        ("26.0~rc1-3", True),
        ("28.0", False),
        ("27.0rc1", True),
    ],
)
def test_expectation_applies_to_a_range_of_versions(version: str, concerned: int) -> None:
    """An expectation may apply to a range of versions.

    Version numbers of distributions and of release candidates are ordered as versions.
    """
    (entry,) = expectations.loads(ENTRY)
    assert entry.concerns("docker", version) == bool(concerned)
    assert not entry.concerns("podman", version)


@pytest.mark.parametrize("version", [None, "", "unknown"])
def test_version_range_with_unknown_runtime_version_is_an_error(version: str | None) -> None:
    """An entry with a version range is an error if the runtime's version is unknown."""
    (entry,) = expectations.loads(ENTRY)
    assert as_version(version) is None
    said = (
        "test suites/ports/test_reachability.py::test_it: the entry is for versions >=26,<28, but "
        f"the run does not know the version of docker ({version!r}); run a test that starts the "
        "runtime, or remove `versions`"
    )
    with pytest.raises(BadExpectations, match=f"^{re.escape(said)}$"):
        entry.concerns("docker", version)


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.2~rc1-3", "1.2"), ("v20.10.24-x", "20.10.24"), ("containerd 2", "2"), ("\u0663.1~x", "1")],
)
def test_nonstandard_version_is_compared_by_its_leading_numbers(text: str, version: str) -> None:
    """A nonstandard version is compared by its leading numbers, in ASCII digits."""
    assert str(as_version(text)) == version


def test_read_expectation_file_keeps_its_text(tmp_path: Path) -> None:
    """A read expectation file keeps its text, because only a changed file is written again."""
    path = tmp_path / "expect.toml"
    path.write_text(ENTRY + "# caf\u00e9\n", encoding="utf-8")
    deviations, text = expectations.read(path)
    assert [item.runtime for item in deviations] == ["docker"]
    assert text == ENTRY + "# caf\u00e9\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; --write-expect creates one"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[[deviation]]", "deviation 1: give exactly one"),
    ],
)
def test_error_for_unreadable_expectation_file_has_its_path(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    """The error for an unreadable expectation file begins with the path."""
    path = tmp_path / "expect.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadExpectations) as caught:
        expectations.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_folder_as_expectation_file_gives_the_error_of_the_kernel(tmp_path: Path) -> None:
    """If the expectation file is a folder, the error is the kernel's and has the path."""
    with pytest.raises(BadExpectations, match=f"^{tmp_path}: Is a directory$"):
        expectations.read(tmp_path)


def test_message_pattern_can_be_limited_to_one_excused_test() -> None:
    """A message pattern may be limited to one excused test, the smallest limit."""
    (found,) = expectations.loads(SAYING.replace("at_most = 3", "at_most = 1"))
    assert found.at_most == 1


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Return expectation files: one of podman for two versions, another for all versions."""
    rootless = ENTRY.replace("docker", "podman-rootless").replace(">=26,<28", ">=4,<5")
    (tmp_path / "podman.toml").write_text(TWO_VERSIONS.format("podman") + rootless)
    (tmp_path / "acme.toml").write_text(
        '[[deviation]]\nruntime = "acme"\ntest = "a"\nreason = "b"\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("name", "version", "reported"),
    [
        ("podman", "4.9.3", True),
        ("podman", "5.5.0", True),
        ("podman", "6.0.0~rc1-1", True),
        ("podman@/opt/podman-4", "5.7", True),
        ("podman", "5.4.2", False),
        ("podman", "5.6.1-rc1", False),
        ("podman", None, False),
        ("acme", "1", False),
        ("another", "1", False),
        ("./podman.toml", "1", False),
        ("podman@5.toml", "1", False),
    ],
)
def test_only_unknown_version_of_a_listed_runtime_is_reported(
    known: Path, name: str, version: str | None, *, reported: bool
) -> None:
    """A version is reported as unknown only if the runtime has an expectation file without it.

    The message lists the versions in the file. A runtime that a user describes has no file.
    """
    said = uncovered_version(name, version, known)
    assert bool(said) == reported
    if reported:
        assert said.startswith(f"podman {version} has no list of known deviations")
        assert ">=5.4,<5.5 and >=5.6,<5.7" in said
        assert f"`netmodes vendors {name}`" in said


@pytest.mark.parametrize(
    ("text", "version"), [("28.0.0-rc.1", "28.0.0rc1"), ("1.2.post1", "1.2.post1")]
)
def test_standard_version_is_compared_as_a_whole(text: str, version: str) -> None:
    """A standard version is compared as a whole (PEP 440).

    A release candidate is before its release, and a post-release after it.
    """
    assert str(as_version(text)) == version
