"""Settings of the documentation site: `tox -e docs` builds it into build/docs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import harness
from harness.model import requirements

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "netmodes"
release = version = harness.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_argparse_cli"]
html_theme = "furo"
html_title = "netmodes"
html_copy_source = False
exclude_patterns = ["_build"]

suppress_warnings = [
    "misc.highlighting_failure",  # of transcripts, whose shell input the lexer cannot follow
    "toc.not_included",  # findings are linked from their table alone
]
myst_heading_anchors = 4  # as on GitHub, so that one link serves both
myst_enable_extensions = ["attrs_inline"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True


def setup(app: Sphinx) -> None:
    """Complete the pages that are written from the code."""
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _mark_code)


def _complete(_app: Sphinx, page: str, source: list[str]) -> None:
    if page == "requirements":
        source[0] += "\n".join(_requirement_lines())
    if page == "cli":
        source[0] += f"```text\n{_pytest_options()}\n```\n"


def _requirement_lines() -> Iterator[str]:
    for section, items in groupby(requirements.of_suites(), key=lambda item: item.section):
        yield from (f"## {section}", "")
        for item in items:
            yield from (f"### {item.id}", "", f"{item.level}. {item.statement}", "")
            yield from (f"Sources: {_linked(item.sources)}.", "")
            if item.history:
                yield from (f"Past bugs that its tests catch: {_linked(item.history)}.", "")


def _linked(references: Iterable[requirements.Reference]) -> str:
    return ", ".join(f"[{it.name}]({it.url})" if it.url else it.name for it in references)


def _pytest_options() -> str:
    """Return the options of the plugin, as `pytest --help` prints them."""
    argv = [sys.executable, "-m", "pytest", "--help"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^container network modes:\n(.*?)^\S", shown, re.MULTILINE | re.DOTALL)
    assert found, "pytest --help has no group of netmodes"
    return found[1].rstrip()


def _mark_code(
    _app: Sphinx, _what: str, _name: str, _of: object, _how: object, lines: list[str]
) -> None:
    """Write the code in single backquotes as reStructuredText literals, in place."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``\\ ", line) for line in lines]
