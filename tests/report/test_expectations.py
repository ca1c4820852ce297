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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[deviation]", "not TOML"),
        ("[deviation]", "in double brackets"),
        ("[[deviations]]", "unknown tables ['deviations']"),
        (ENTRY + 'reasons = "x"', "unknown keys ['reasons']"),
        (ENTRY + "requirement = 3", "requirement is no text"),
        (ENTRY + 'requirement = "BR-1"', "name one requirement, one test or one cell"),
        (ENTRY.replace("test =", "#"), "name one requirement, one test or one cell"),
        (ENTRY.replace("reason =", "#"), "no reason"),
        (ENTRY.replace('"docker"', '" "'), "no runtime"),
        (ENTRY.replace(">=26,<28", "26 to 28"), "versions"),
        (ENTRY.replace("https:", "javascript:"), "link is no address of the web"),
        (ENTRY + 'verdict = "kept"', "verdict 'kept' is none of broken, error, unsupported"),
        (ENTRY + 'verdict = "unsupported"', "only a requirement can be unsupported"),
    ],
)
def test_a_mistake_is_named_with_its_entry(text: str, complaint: str) -> None:
    """Whoever edits the file by hand is told what to mend."""
    with pytest.raises(BadExpectations, match=re.escape(complaint)):
        expectations.loads(text)


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
