"""Tests of the prose check, which reports unclear sentences and names, but not code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import prose


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("What is written to the folder: files.", "begins with “What” as a noun"),
        ("The folder is made. Who asks for it gets it.", "begins with “Who” as a noun"),
        ("A start is refused, and whoever asks gets an error.", "“whoever”"),
        ("The host has a network of one's own.", "user-defined network"),
        (f"The list has {'a very ' * 20}long end.", "words in a sentence"),
    ],
)
def test_unclear_sentence_is_reported(text: str, remark: str) -> None:
    """A sentence that breaks a rule in CONTRIBUTING.md gets a remark."""
    assert remark in "".join(prose.prose_remarks(text))


@pytest.mark.parametrize(
    "text",
    [
        "Return the links of the namespace.",
        "The error is `nobody is told`.",
        "The page quotes “What is it” and “whoever”.",
        "What does a container see?",
    ],
)
def test_plain_sentence_and_quoted_text_pass(text: str) -> None:
    """Plain sentences, questions, code and quotations get no remark."""
    assert not list(prose.prose_remarks(text))


@pytest.mark.parametrize(
    "name", ["test_so_does_the_relay", "test_what_is_left_behind", "test_relay_tells_nobody"]
)
def test_unclear_test_name_is_reported(name: str) -> None:
    """A test name gets a remark if it has a pronoun in place of a noun."""
    assert list(prose.name_remarks(name))


def test_remark_on_a_page_names_its_line(tmp_path: Path) -> None:
    """A remark on a page has the line's number in the file.

    Code blocks and tables get no remarks, but their lines are counted.
    """
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```\nWhat is this\n```\n\n| Who |\n\n- fine\n- What is this means that.\n"
    )
    (remark,) = prose.check([tmp_path])
    assert str(remark).startswith(f"{page}:10: ")
