"""Tests of the report's HTML page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

from harness.report import store
from harness.report.render import html
from harness.report.schema import Failure, Report, Verdict
from tests.conftest import CHROMIUM
from tests.report import made

_FLAGS = (
    "--no-sandbox",  # Chromium runs in the tests' sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
GREEN = made.report(made.result(requirements=["BR-4", "BR-9", "HOST-1"]), name="other", version="3")
WITHIN = 20_000
"""Time limit in milliseconds for a page to react, on the slowest machine."""
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium."""
    expect.set_options(timeout=WITHIN)
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield found
        found.close()


Shown = Callable[..., Page]


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Shown]:
    """Return a function that opens the page of some reports.

    After the test the page has requested no other resource and the console has no error.
    """
    asked: list[str] = []
    said: list[str] = []
    contexts = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(message.text)

    def fail(error: Error) -> None:
        said.append(str(error))

    def show(*reports: Report, **options: object) -> Page:
        store.write_page(reports, tmp_path / "index.html")
        context = browser.new_context(**options)  # type: ignore[arg-type] # any option of it
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WITHIN)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", hear)
        page.on("pageerror", fail)
        page.goto((tmp_path / "index.html").as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    own = (tmp_path / "index.html").as_uri()
    assert [url for url in asked if not url.startswith((own, "data:,"))] == []
    assert said == []


def test_page_shows_verdict_world_matrix_and_requirements(shown: Shown) -> None:
    """The page shows the verdict, the world, the matrix and the requirements."""
    page = shown(made.BROKEN)
    expect(page.get_by_role("heading", level=1)).to_have_text("acme 1.2")
    expect(page.get_by_text("Does not conform: 1 requirement not kept.")).to_be_visible()
    expect(page.locator(".world svg")).to_be_visible()
    assert page.locator(".heat button").count() == 6
    assert page.locator(".heat button.wrong").count() == 2
    assert page.locator(".heat button.unseen").count() == 1
    expect(page.locator(".req:visible")).to_have_count(5)
    expect(page.locator(".failure").first).to_contain_text("1 of 2 cells is wrong")


def test_page_is_readable_without_script(shown: Shown) -> None:
    """The page is readable with scripts disabled; the script only adds convenience."""
    page = shown(made.BROKEN, java_script_enabled=False)
    expect(page.locator(".heat button.wrong").first).to_be_visible()
    page.locator("#req-BR-4 summary").click()
    expect(page.get_by_role("link", name="RFC 792")).to_be_visible()


# --- the matrix ----------------------------------------------------------------------


def test_click_on_a_cell_shows_its_details(shown: Shown) -> None:
    """A click on a cell shows its promise, observation, reason, requirement and test."""
    page = shown(made.BROKEN)
    page.locator(".heat button.wrong").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("a → b, icmp over IPv4")
    expect(dialog).to_contain_text("Not as promised.")
    expect(dialog).to_contain_text("Promisedreply, TTL 64")
    expect(dialog).to_contain_text("Observeddropped")
    expect(dialog).to_contain_text("peers on one bridge")
    expect(dialog.get_by_role("link", name="evidence/peers")).to_have_attribute(
        "href", "evidence/peers/"
    )
    expect(dialog.get_by_role("link", name="story.txt")).to_have_attribute(
        "href", "evidence/peers/story.txt"
    )
    links = page.locator(".failure .evidence a").all()
    assert [link.get_attribute("href") for link in links][:2] == [
        "evidence/peers/",
        "evidence/peers/story.txt",
    ]
    dialog.get_by_role("link", name="BR-4").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#req-BR-4 dl")).to_be_in_viewport()


def test_cell_of_the_page_has_a_tooltip(shown: Shown) -> None:
    """The tooltip of a cell names source, target and result."""
    page = shown(made.BROKEN)
    page.locator(".heat button.wrong").first.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("a → b icmp/4: dropped")
    page.get_by_role("heading", level=1).hover()
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_matrix_is_usable_by_keyboard(shown: Shown) -> None:
    """The Tab key reaches the matrix once; arrow keys, Enter and Escape work inside it."""
    page = shown(made.BROKEN)
    stops = page.locator(".heat button[tabindex='0']")
    expect(stops).to_have_count(1)
    stops.focus()
    focused = page.locator(".heat button:focus")
    expect(focused).to_have_attribute(
        "aria-label", "a → b icmp/4: dropped, ttl 64; wrong, promised reply, ttl 64"
    )
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute(
        "aria-label", "a → b tcp/4: dropped, ttl 64; wrong, promised reply, ttl 64"
    )
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("tcp over IPv4")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(focused).to_have_count(1)


# --- the world -----------------------------------------------------------------------


def test_drawing_shows_reachability_of_a_container(shown: Shown) -> None:
    """The drawing shows which targets the first container with a wrong cell reaches.

    A click or Enter selects another container.
    """
    page = shown(made.BROKEN)
    status = page.locator(".reach")
    expect(status).to_have_text("a reaches host. Not as promised: b.")
    expect(page.locator(".box.source")).to_have_attribute("data-name", "a")
    page.get_by_role("button", name="b: show what it reaches").click()
    expect(status).to_have_text("b reaches a.")
    page.get_by_role("button", name="host: show what it reaches").press("Enter")
    expect(status).to_contain_text("host reaches nothing. Not as promised: a.")
    assert page.locator(".arcs path.wrong").count() == 1


# --- requirements --------------------------------------------------------------------


def test_filter_finds_requirements_by_word_and_verdict(shown: Shown) -> None:
    """The filter finds requirements by id, statement, source and verdict.

    Without a match it says so.
    """
    page = shown(made.BROKEN)
    rows = page.locator(".req:visible")
    search = page.get_by_role("searchbox")
    search.fill("rfc 792")
    expect(rows).to_have_count(1)
    expect(page.locator("#found")).to_have_text("1")
    search.fill("")
    page.locator(".filters").get_by_text("broken").click()
    expect(rows).to_have_count(1)
    page.locator(".filters").get_by_text("kept").click()
    expect(rows).to_have_count(2)
    search.fill("nothing like it")
    expect(rows).to_have_count(0)
    page.get_by_role("button", name="Show all").click()
    expect(rows).to_have_count(5)


def test_link_to_a_filtered_requirement_opens_its_details(shown: Shown) -> None:
    """A link to a requirement that the filter hides makes it visible and opens its details."""
    page = shown(made.BROKEN)
    page.get_by_role("searchbox").fill("DNS-1")
    expect(page.locator("#req-BR-4")).to_be_hidden()
    page.locator(".waffle a", has_text="BR-4").click()
    expect(page.locator("#req-BR-4 dl")).to_be_in_viewport()


def test_slash_key_focuses_the_search_field(shown: Shown) -> None:
    """The key `/` moves the focus to the page's search field, as on other sites."""
    page = shown(made.BROKEN)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


# --- several runtimes ---------------------------------------------------------------


def test_page_compares_several_runtimes(shown: Shown) -> None:
    """A page about several runtimes has a tab for each.

    Rows that differ between the runtimes show a verdict for each.
    """
    page = shown(made.BROKEN, GREEN)
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    expect(page.get_by_role("tabpanel")).to_contain_text("Does not conform")
    page.get_by_role("tab", name="acme 1.2").press("ArrowRight")
    expect(page.get_by_role("tabpanel")).to_contain_text("Conforms")
    page.locator(".filters").get_by_text("different verdicts").click()
    row = page.locator("#req-BR-4")
    expect(row.locator(".badges")).to_contain_text("acme 1.2: broken")
    expect(row.locator(".badges")).to_contain_text("other 3: kept")
    expect(page.locator("#req-LIFE-1")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}])
def test_page_fits_every_screen_with_enough_contrast(
    shown: Shown, scheme: str, size: dict[str, int]
) -> None:
    """No element is wider than the screen, and all text has enough contrast."""
    page = shown(made.BROKEN, GREEN, color_scheme=scheme, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(_FAINTEST) == []
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Change between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert page.evaluate(_FAINTEST) == []


_FAINTEST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] > 200) return colour;
    }
    return [255, 255, 255, 255];
  };
  const light = ([red, green, blue]) => [red, green, blue]
    .map((part) => part / 255)
    .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const faint = [];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.offsetParent || element.closest("svg, .sr, .waffle")) continue;
    const pair = [light(rgb(getComputedStyle(element).color)), light(ground(element))].sort();
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) faint.push(`${element.className} ${element.textContent} ${contrast}`);
  }
  return faint;
}"""
"""JavaScript that finds text with a contrast below 4.5:1 (WCAG 2.2, 1.4.3)."""


def test_controls_of_the_page_have_accessible_names(shown: Shown) -> None:
    """Each control of the page has a name that a screen reader announces."""
    page = shown(made.BROKEN, GREEN)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input, summary, [role=button]")]
        .filter((item) => !(item.textContent.trim() || item.getAttribute("aria-label") ||
                            item.labels?.[0]?.textContent.trim()))
        .map((item) => item.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("main").count() == 1
    headings = page.evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3')].filter((h) => h.offsetParent)"
        ".map((h) => Number(h.tagName[1]))"
    )
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))


HOSTILE = made.report(
    made.result(
        "x.py::test_<img src=x onerror=alert(1)>",
        Verdict.BROKEN,
        failures=(
            Failure(
                when="call",
                message="</pre><script>document.title = 'owned'</script>",
                text="<svg onload=\"document.title = 'owned'\">",
                evidence="javascript:alert(1)",
            ),
        ),
    ),
    cells=[made.cell("</script><script>document.title = 'owned'</script>", "b")],
    name="<script>document.title = 'owned'</script>",
)


def test_hostile_text_is_inert_in_the_page(shown: Shown) -> None:
    """Hostile text in a report is not executed, neither in the HTML nor in the script's data."""
    page = shown(HOSTILE)
    page.on("dialog", lambda dialog: pytest.fail(f"it ran: {dialog.message}"))
    page.locator(".heat button").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("document.title = 'owned'")
    assert "owned" in page.title()
    assert page.title().startswith("<script>")
    assert page.locator("a[href^='javascript:']").count() == 0
    expect(page.locator(".failure").first).to_contain_text("</pre><script>")


def test_content_security_policy_blocks_foreign_scripts(browser: Browser) -> None:
    """The Content-Security-Policy blocks scripts in injected markup."""
    page = browser.new_page()
    text = html.render([made.BROKEN])
    with page.expect_console_message() as said:
        page.set_content(text.replace("<main", "<script>document.title='owned'</script><main", 1))
    expect(page.get_by_role("heading", level=1)).to_have_text("acme 1.2")
    assert page.title() == "acme 1.2: netmodes"
    assert "Content Security Policy" in said.value.text
    page.close()
