"""Test that relative links on Markdown pages have existing targets, headings included."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.report.render import finding_pages
from tests.support.programs import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_of_page_exist(page: Path) -> None:
    """Each relative link and image of a page names an existing file or folder, and heading."""
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)[^)]*\)", prose_of(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def prose_of(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, and those that the page sets itself."""
    text = prose_of(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {*map(finding_pages.anchor, headings), *re.findall(r'<a id="([^"]+)">', text)}
