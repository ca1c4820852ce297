"""The page in a real browser: it shows, filters, opens, and asks for nothing from outside."""

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
    "--no-sandbox",  # it is in ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
GREEN = made.report(made.result(requirements=["BR-4", "BR-9", "HOST-1"]), name="other", version="3")
WITHIN = 20_000
"""Milliseconds in which whatever is expected of a page must show, on the slowest machine."""
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    expect.set_options(timeout=WITHIN)
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield found
        found.close()


Shown = Callable[..., Page]


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Shown]:
    """Opens the page about some reports. At the end it must have asked for nothing else.

    Nor may the console have shown an error, or the script have failed.
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


def test_it_shows_verdict_world_matrix_and_requirements(shown: Shown) -> None:
    """What a person looks for is there, drawn."""
    page = shown(made.BROKEN)
    expect(page.get_by_role("heading", level=1)).to_have_text("acme 1.2")
    expect(page.get_by_text("Does not conform: 1 requirement not kept.")).to_be_visible()
    expect(page.locator(".world svg")).to_be_visible()
    assert page.locator(".heat button").count() == 6
    assert page.locator(".heat button.wrong").count() == 2
    assert page.locator(".heat button.unseen").count() == 1
    expect(page.locator(".req:visible")).to_have_count(5)
    expect(page.locator(".failure").first).to_contain_text("1 of 2 cells is wrong")


def test_without_a_script_everything_can_still_be_read(shown: Shown) -> None:
    """The script makes it handier; nothing depends on it."""
    page = shown(made.BROKEN, java_script_enabled=False)
    expect(page.locator(".heat button.wrong").first).to_be_visible()
    page.locator("#req-BR-4 summary").click()
    expect(page.get_by_role("link", name="RFC 792")).to_be_visible()


# --- the matrix ----------------------------------------------------------------------


def test_a_cell_tells_all_about_itself(shown: Shown) -> None:
    """A click: what was promised and observed, why, by which requirement and test."""
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
    dialog.get_by_role("link", name="BR-4").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#req-BR-4 dl")).to_be_in_viewport()


def test_evidence_can_be_opened(shown: Shown, tmp_path: Path) -> None:
    """Links lead to the folder beside the page, and to each file in it."""
    folder = tmp_path / "evidence" / "peers"
    folder.mkdir(parents=True)
    (folder / "story.txt").write_text("dropped in host")
    page = shown(made.BROKEN)
    links = page.locator(".failure .evidence a")
    led = [link.get_attribute("href") or "" for link in links.all()]
    assert led[0] == "evidence/peers/"
    assert (tmp_path / led[1]).read_text() == "dropped in host"


def test_a_cell_says_what_it_is_under_the_pointer(shown: Shown) -> None:
    """So that nobody has to count rows and columns."""
    page = shown(made.BROKEN)
    page.locator(".heat button.wrong").first.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("a → b icmp/4: dropped")
    page.get_by_role("heading", level=1).hover()
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_the_matrix_is_walked_by_keyboard(shown: Shown) -> None:
    """One stop for Tab, arrows from cell to cell, Enter and Escape to look and come back."""
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


def test_the_drawing_shows_whom_one_reaches(shown: Shown) -> None:
    """It starts with who went wrong; a click or Enter asks about another."""
    page = shown(made.BROKEN)
    status = page.locator(".reach")
    expect(status).to_have_text("a reaches host. Not as promised: b.")
    expect(page.locator(".box.source")).to_have_attribute("data-name", "a")
    page.get_by_role("button", name="b: show whom it reaches").click()
    expect(status).to_have_text("b reaches a.")
    page.get_by_role("button", name="host: show whom it reaches").press("Enter")
    expect(status).to_contain_text("host reaches nobody. Not as promised: a.")
    assert page.locator(".arcs path.wrong").count() == 1


# --- requirements --------------------------------------------------------------------


def test_requirements_are_found_by_word_and_verdict(shown: Shown) -> None:
    """In ids, statements and sources; several verdicts at once; nothing found says so."""
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


def test_a_link_to_a_requirement_that_is_filtered_away_shows_it(shown: Shown) -> None:
    """And opens it."""
    page = shown(made.BROKEN)
    page.get_by_role("searchbox").fill("DNS-1")
    expect(page.locator("#req-BR-4")).to_be_hidden()
    page.locator(".waffle a", has_text="BR-4").click()
    expect(page.locator("#req-BR-4 dl")).to_be_in_viewport()


def test_slash_leads_to_the_search(shown: Shown) -> None:
    """As people know it from elsewhere."""
    page = shown(made.BROKEN)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


# --- several, everywhere ---------------------------------------------------------------


def test_several_runtimes_are_compared(shown: Shown) -> None:
    """A tab for each, and in the rows where they differ the verdict of each."""
    page = shown(made.BROKEN, GREEN)
    expect(page.get_by_role("tabpanel")).to_have_count(1)
    expect(page.get_by_role("tabpanel")).to_contain_text("Does not conform")
    page.get_by_role("tab", name="acme 1.2").press("ArrowRight")
    expect(page.get_by_role("tabpanel")).to_contain_text("Conforms")
    page.locator(".filters").get_by_text("where they differ").click()
    row = page.locator("#req-BR-4")
    expect(row.locator(".badges")).to_contain_text("acme 1.2: broken")
    expect(row.locator(".badges")).to_contain_text("other 3: kept")
    expect(page.locator("#req-LIFE-1")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}])
def test_it_fits_every_screen_and_can_be_read(
    shown: Shown, scheme: str, size: dict[str, int]
) -> None:
    """Nothing makes the page wider than the screen; text stands out from its ground."""
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
"""Text with a contrast below 4.5:1, WCAG 2.2's criterion 1.4.3."""


def test_everything_that_can_be_used_has_a_name(shown: Shown) -> None:
    """Whoever hears the page instead of seeing it knows what a control does."""
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


def test_hostile_text_is_shown_and_does_nothing(shown: Shown) -> None:
    """Neither as the page is read nor as the script shows a cell."""
    page = shown(HOSTILE)
    page.on("dialog", lambda dialog: pytest.fail(f"it ran: {dialog.message}"))
    page.locator(".heat button").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("document.title = 'owned'")
    assert "owned" in page.title()
    assert page.title().startswith("<script>")
    assert page.locator("a[href^='javascript:']").count() == 0
    expect(page.locator(".failure").first).to_contain_text("</pre><script>")


def test_a_script_that_is_not_ours_would_not_run(browser: Browser) -> None:
    """The page's policy is a second wall: markup that got in anyhow has no effect."""
    page = browser.new_page()
    text = html.render([made.BROKEN])
    with page.expect_console_message() as said:
        page.set_content(text.replace("<main", "<script>document.title='owned'</script><main", 1))
    expect(page.get_by_role("heading", level=1)).to_have_text("acme 1.2")
    assert page.title() == "acme 1.2: netmodes"
    assert "Content Security Policy" in said.value.text
    page.close()
