"""Test that relative links on Markdown pages have existing targets.

The build of the site also checks anchors.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.programs import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_of_page_exist(page: Path) -> None:
    """Each relative link and image of a page names an existing file or folder."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert re.match(r"https?:", target) or (page.parent / target).exists(), target
