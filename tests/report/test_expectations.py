"""The expectation file: read with care, written so that it can be reviewed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import expectations
from harness.expectations import BadExpectations, Deviation, Kind, as_version
from harness.report.schema import Verdict

ENTRY = """
[[deviation]]
runtime = "docker"
versions = ">=26,<28"
test = "suites/ports/test_reached.py::test_it"
reason = "a neighbour reaches a port published on 127.0.0.1"
link = "https://github.com/moby/moby/issues/45610"
"""


def test_an_entry_says_what_it_is_about() -> None:
    """Runtime, versions, what, why, and where to read more; broken unless it says otherwise."""
    (found,) = expectations.loads(ENTRY)
    assert found == Deviation(
        runtime="docker",
        kind=Kind.TEST,
        id="suites/ports/test_reached.py::test_it",
        verdict=Verdict.BROKEN,
        versions=">=26,<28",
        reason="a neighbour reaches a port published on 127.0.0.1",
        link="https://github.com/moby/moby/issues/45610",
    )


ABOUT_IT = "deviation 1 (test suites/ports/test_reached.py::test_it): "


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[deviation]", "it is not TOML: Expected "),
        ("[deviation]", "write each entry under [[deviation]], in double brackets"),
        ("[[deviations]]", "unknown tables ['deviations']; there is only [[deviation]]"),
        (
            ENTRY + 'reasons = "x"',
            "deviation 1: unknown keys ['reasons']; known are ['cell', 'chance', 'link', ",
        ),
        (ENTRY + "requirement = 3", "deviation 1: requirement is no text: 3"),
        (ENTRY + ENTRY + "link = 3", "it is not TOML: "),
        (ENTRY + ENTRY + "cell = 3", "deviation 2: cell is no text: 3"),
        (
            ENTRY + 'requirement = "BR-1"',
            "deviation 1: name one requirement, one test or one cell",
        ),
        (ENTRY.replace("test =", "#"), "deviation 1: name one requirement, one test or one cell"),
        (ENTRY.replace("reason =", "#"), f"{ABOUT_IT}it has no reason"),
        (ENTRY.replace("runtime =", "#"), f"{ABOUT_IT}it has no runtime"),
        (ENTRY.replace('"docker"', '" "'), f"{ABOUT_IT}it has no runtime"),
        (
            ENTRY.replace(">=26,<28", "26 to 28"),
            f"{ABOUT_IT}versions: Invalid specifier: '26 to 28'; write such as '>=26,<28'",
        ),
        (
            ENTRY.replace("https:", "javascript:"),
            f"{ABOUT_IT}link is no address of the web: 'javascript://github.com/",
        ),
        (
            ENTRY + 'verdict = "kept"',
            f"{ABOUT_IT}verdict 'kept' is none of broken, error, unsupported",
        ),
        (ENTRY + 'verdict = "unsupported"', f"{ABOUT_IT}only a requirement can be unsupported"),
        (ENTRY + 'chance = "rare"', f"{ABOUT_IT}chance is neither true nor false: 'rare'"),
        (
            ENTRY.replace("test =", "requirement =") + "chance = true",
            ABOUT_IT.replace("(test", "(requirement") + "only a test fails by chance",
        ),
    ],
)
def test_a_mistake_is_named_with_its_entry(text: str, complaint: str) -> None:
    """Whoever edits the file by hand is told what to mend."""
    with pytest.raises(BadExpectations, match=f"^{re.escape(complaint)}"):
        expectations.loads(text)


def test_only_a_requirement_can_be_unsupported() -> None:
    """Without versions or a link, where there are none."""
    text = """
        [[deviation]]
        runtime = "docker"
        requirement = "DNS-1"
        verdict = "unsupported"
        reason = "no resolver"
    """
    (found,) = expectations.loads(text)
    assert found == Deviation(
        runtime="docker",
        kind=Kind.REQUIREMENT,
        id="DNS-1",
        verdict=Verdict.UNSUPPORTED,
        reason="no resolver",
    )


def test_a_file_reads_as_somebody_would_write_it() -> None:
    """What it is for, then the entries in order, without what they do not say."""
    (found,) = expectations.loads(ENTRY)
    short = Deviation(runtime="acme", kind=Kind.CELL, id="the cast: a → b icmp/4", reason="known")
    assert expectations.dumps([found, short]) == (
        "# What is known not to be as it should. See docs/gate.md; `--write-expect` sorts it.\n"
        """
[[deviation]]
runtime = "acme"
cell = "the cast: a → b icmp/4"
verdict = "broken"
reason = "known"

[[deviation]]
runtime = "docker"
versions = ">=26,<28"
test = "suites/ports/test_reached.py::test_it"
verdict = "broken"
reason = "a neighbour reaches a port published on 127.0.0.1"
link = "https://github.com/moby/moby/issues/45610"
"""
    )


def test_what_is_chance_is_said_before_the_reason() -> None:
    """And what is not, says nothing of it."""
    assert expectations.loads(ENTRY)[0].chance is False
    (found,) = expectations.loads(ENTRY + "chance = true")
    assert found.chance is True
    assert '"broken"\nchance = true\nreason = ' in expectations.dumps([found])


WORDS = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
DEVIATIONS = st.builds(
    Deviation,
    runtime=WORDS,
    kind=st.sampled_from(Kind),
    id=WORDS,
    verdict=st.sampled_from([Verdict.BROKEN, Verdict.ERROR]),
    versions=st.sampled_from(["", "==1.2", ">=26,<28"]),
    reason=WORDS,
    link=st.sampled_from(["", "https://example.com/1"]),
)


@settings(deadline=None)
@given(st.lists(DEVIATIONS, unique_by=lambda item: item.key), st.randoms())
def test_the_same_deviations_give_the_same_file(found: list[Deviation], random: object) -> None:
    """Whatever their order, and what is written is read as it was."""
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
def test_an_entry_is_about_a_range_of_versions(version: str, concerned: int) -> None:
    """Versions are compared as such, those of distributions and release candidates included."""
    (entry,) = expectations.loads(ENTRY)
    assert entry.concerns("docker", version) == bool(concerned)
    assert not entry.concerns("podman", version)


@pytest.mark.parametrize("version", [None, "", "unknown"])
def test_a_range_needs_a_known_version(version: str | None) -> None:
    """Whether an entry applies is never guessed."""
    (entry,) = expectations.loads(ENTRY)
    assert as_version(version) is None
    said = (
        "test suites/ports/test_reached.py::test_it: it is about versions >=26,<28, and the "
        f"version of docker in this run is {version!r}; run a test that starts the runtime, or "
        "leave `versions` out"
    )
    with pytest.raises(BadExpectations, match=f"^{re.escape(said)}$"):
        entry.concerns("docker", version)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.2~rc1-3", "1.2"),
        ("v20.10.24-x", "20.10.24"),
        ("containerd 2", "2"),
        ("\u0663.1~x", "1"),
    ],
)
def test_of_a_strange_version_the_leading_numbers_count(text: str, version: str) -> None:
    """In the digits that everybody writes versions in."""
    assert str(as_version(text)) == version
