"""Tests of sanitised text: foreign text cannot affect the reader or viewer of a report."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness.report import expectations, failure_links, sanitize, schema
from harness.report.compare import changes
from harness.report.render import html, junit, markdown
from harness.report.schema import Failure, Report, Verdict
from tests.report import made

_CONTROLS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def acted_upon(said: str) -> set[str]:
    """Return the characters that a terminal or viewer would act upon, except line breaks."""
    return {char for char in said if unicodedata.category(char) in _CONTROLS} - {"\n"}


@settings(deadline=None)
@given(made.HOSTILE)
def test_plain_text_has_no_control_characters(said: str) -> None:
    """Plain text keeps its line breaks; other invisible characters are escaped."""
    assert acted_upon(sanitize.plain(said)) == set()
    assert acted_upon(sanitize.line(said)) == set()
    assert "\n" not in sanitize.line(said)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S")) | st.just(" ")))
def test_visible_characters_are_unchanged(said: str) -> None:
    """Letters, digits, signs and spaces of any script are unchanged."""
    assert sanitize.line(said) == said


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "//x",
        'https://x/"><b>',
        " https://x",
    ],
)
def test_only_web_addresses_are_links(url: str) -> None:
    """Only web addresses become links; other sources are shown as text."""
    assert sanitize.address("https://example.com/a?b=c#d") == "https://example.com/a?b=c#d"
    assert sanitize.address(url) is None


@pytest.mark.parametrize(
    "path", ["/etc", "../x", "a/../../x", "a//b", "javascript:x", "a\\b", "a?b", "", ".", "a\nb"]
)
def test_evidence_outside_the_reports_folder_is_refused(path: str) -> None:
    """A folder is accepted as evidence only if it is below the report's folder."""
    assert sanitize.folder("evidence/test-1") == "evidence/test-1"
    assert sanitize.folder(path) is None


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "state/../x.json", "state/a/b.json", "x.html", "javascript:x", ""],
)
def test_only_evidence_files_are_linked(name: str) -> None:
    """The report links evidence files only: no other file of their folder, and no other folder."""
    own = Failure(when="call", evidence="evidence/one", files=(name, "story.txt", "state/a.json"))
    ways = ("evidence/one/story.txt", "evidence/one/state/a.json")
    assert tuple(way for _, way in failure_links.links(own)) == ways
    assert failure_links.links(replace(own, evidence="../one")) == ()


# --- the page ------------------------------------------------------------------


class Page(HTMLParser):
    """Structure of a page: its elements with attributes, its links and its text.

    `words` are the values of the attributes in `names`, by default of all attributes.
    """

    def __init__(self, page: str, names: Collection[str] = ()) -> None:
        super().__init__()
        self._names = names
        self.shape: list[object] = []
        self.links: list[str] = []
        self.words = ""
        self._raw = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the element, its links and its attributes."""
        self.shape.append((tag, tuple(name for name, _ in attrs)))
        self._raw = tag in ("script", "style")
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction"):
                self.links.append(value or "")
            elif name in self._names or (not self._names and name != "content"):
                self.words += f"\n{value}"

    def handle_endtag(self, tag: str) -> None:
        """Record the end of an element."""
        self.shape.append(f"/{tag}")
        self._raw = False

    def handle_data(self, data: str) -> None:
        """Record visible text."""
        if not self._raw:
            self.words += f" {data}"

    def handle_comment(self, data: str) -> None:
        """Fail, because the templates have no comments."""
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        """Record the document type."""
        self.shape.append(decl)


@settings(deadline=None)
@given(made.hostile_reports())
def test_page_has_only_template_elements(report: Report) -> None:
    """Foreign text cannot add a tag, attribute or comment to the page.

    Links lead to the web or to files below the page.
    """
    page = Page(html.render([report]))
    tags = {item[0] for item in page.shape if isinstance(item, tuple)}
    assert tags <= OURS
    names = {name for item in page.shape if isinstance(item, tuple) for name in item[1]}
    assert not [name for name in names if name.startswith("on")]
    assert page.shape.count(("script", ())) == 1
    assert page.shape.count("/script") == 2
    for link in page.links:
        assert re.match(r"https?://|#|data:,$|[\w .,@+=()\[\]/-]+$", link), link
    assert acted_upon(page.words) == set()


_OURS = """
html head meta link title style body a header p svg path circle nav button main h1 h2 h3 div section
span ul li b small code pre details summary figure figcaption g line text tspan rect table caption
thead tbody tr td th i input form label fieldset legend dl dt dd meter footer dialog script
"""
OURS = set(_OURS.split())


@settings(deadline=None)
@given(made.hostile_reports())
def test_data_of_the_page_cannot_end_their_element(report: Report) -> None:
    """Foreign text in the page's data cannot end the data's element.

    The data is JSON with the same cells as `report.json`.
    """
    page = html.render([report])
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data) == [schema.plain(report)["matrices"]]


# --- Markdown ----------------------------------------------------------------------

_MARKDOWN = MarkdownIt("gfm-like", {"linkify": False}).enable(["table", "strikethrough"])


def tokens(nodes: list[Token]) -> Iterator[Token]:
    """Return all Markdown tokens, including nested ones."""
    for node in nodes:
        yield node
        yield from tokens(node.children or [])


@settings(deadline=None)
@given(made.HOSTILE)
def test_markdown_escapes_text(said: str) -> None:
    """A rendered Markdown summary shows foreign text without markup, mentions or links."""
    escaped = sanitize.markdown(said)
    found = list(tokens(_MARKDOWN.parse(f"- said: {escaped}")))
    kinds = {node.type for node in found} - {"text", "text_special", "inline"}
    parts = ("bullet_list", "list_item", "paragraph")
    assert kinds == {f"{part}_{end}" for part in parts for end in ("open", "close")}
    shown = "".join(node.content for node in found if node.type in ("text", "text_special"))
    assert shown.strip() == f"said: {sanitize.line(said)}".strip()
    assert not re.search(r"@\w|(?<!&)#\d|https?://|www\.|:\w+:", escaped)


@settings(deadline=None)
@given(made.hostile_reports())
def test_all_markup_of_the_summary_comes_from_the_template(report: Report) -> None:
    """The only HTML in the summary is collapsible sections and quoted failures.

    Its links lead to the web.
    """
    found = list(tokens(_MARKDOWN.parse(markdown.render(report))))
    blocks = "".join(node.content for node in found if node.type.startswith("html"))
    assert set(re.findall(r"</?(\w+)", blocks)) <= {"details", "summary", "pre"}
    assert not re.search(r"<\w+\s", blocks)
    assert not [node for node in found if node.type == "image"]
    for node in found:
        if node.type == "link_open":
            assert re.match("https?://", str(node.attrs["href"]))
    assert acted_upon(markdown.render(report)) == set()


@settings(deadline=None)
@given(made.HOSTILE)
def test_all_markup_of_the_evidence_index_comes_from_the_template(said: str) -> None:
    """The evidence index has only the template's markup; links lead to evidence folders only."""
    names = ("story.txt", said)
    failure = Failure(when="call", message=said, evidence="evidence/one", files=names)
    report = made.report(made.result(said, Verdict.BROKEN, [said], failures=(failure,)))
    listed = failure_links.index(report, "evidence")
    found = list(tokens(_MARKDOWN.parse(listed)))
    assert not [node for node in found if node.type.startswith("html") or node.type == "image"]
    ways = ["one/", "one/story.txt"]
    assert [node.attrs["href"] for node in found if node.type == "link_open"] == ways
    assert acted_upon(listed) == set()


# --- JUnit, JSON, badge, terminal ----------------------------------------------------

_JUNIT = "testsuites testsuite properties property testcase failure error system-out skipped"


@settings(deadline=None)
@given(made.hostile_reports())
def test_junit_is_valid_xml(report: Report) -> None:
    """The JUnit file is valid XML with only template elements."""
    root = ElementTree.fromstring(junit.render(report))
    assert {item.tag for item in root.iter()} <= set(_JUNIT.split())
    said = "".join(root.itertext()) + "".join(
        value for item in root.iter() for value in item.attrib.values()
    )
    assert acted_upon(said) == set()


@settings(deadline=None)
@given(made.hostile_reports())
def test_json_and_badge_have_no_control_characters(report: Report) -> None:
    """`report.json` and the badge have no control characters, so `cat report.json` is safe."""
    assert acted_upon(schema.dumps(report) + markdown.badge(report)) == set()


@settings(deadline=None)
@given(made.hostile_reports(), made.hostile_reports())
def test_gate_and_diff_escape_line_breaks(old: Report, new: Report) -> None:
    """The gate and the diff print each name of a forged report escaped, in a single line."""
    result = expectations.compare(old, [], file="x", gone=lambda _: False)
    assert old.gate
    said = [
        *expectations.summary_lines(result, old),
        *expectations.summary_lines(old.gate, old),
        *changes(old, new),
    ]
    for words in map(sanitize.line, said):
        assert acted_upon(words) == set()
        assert "\n" not in words
