"""The built pages in headless Chromium, without network: what a reader of the report sees."""

import re

import pytest

from tests.timing import until
from viralbert.course import catalogue, report
from viralbert.course.runner import Run

PAGES = ["index", *(notebook.name for notebook in catalogue.notebooks())]
WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module")
def built(smoke):
    return report.report(Run("smoke")).parent


def watch(page) -> tuple[list[str], list[str]]:
    """What a page asks for, and what it prints to the console or raises, from now on."""
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda asked: requests.append(asked.url))
    page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: messages.append(f"error: {error}"))
    return requests, messages


@pytest.fixture(scope="module", params=[f"{name}-{width}" for name in PAGES for width in WIDTHS])
def opened(request, built, browser):
    """A page that was opened and scrolled through, with what `watch` saw."""
    name, width = request.param.rsplit("-", 1)
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, offline=True)
    page = context.new_page()
    requests, messages = watch(page)
    page.goto((built / f"{name}.html").as_uri())
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    yield page, requests, messages
    context.close()


def test_the_watch_sees_outside_requests_and_errors(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<img src='http://host.invalid/x.png'><script>console.error('x'); nothing()</script>"
    )
    page = browser.new_page()
    requests, messages = watch(page)
    page.goto(path.as_uri())
    assert "http://host.invalid/x.png" in requests
    until(
        lambda: page.wait_for_timeout(10) or len(messages) >= 2
    )  # they come while the page is asked something
    page.close()


def test_nothing_is_asked_of_any_host(opened):
    _, requests, messages = opened
    assert requests
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert messages == []


def test_every_image_is_there_and_has_alt_text(opened):
    page, _, _ = opened
    images = page.evaluate(
        "[...document.querySelectorAll('article img')].map(i => [i.alt, i.naturalWidth, "
        "i.clientWidth, i.clientHeight])"
    )
    for alt, natural, width, height in images:
        assert len(alt.split()) >= 5
        assert min(natural, width, height) > 50
    if "index" not in page.url:
        assert len(images) >= 3


def test_formulas_are_drawn_and_none_is_left_as_latex(opened):
    page, _, _ = opened
    text = page.inner_text("article")
    visible = re.sub(r"`[^`]*`", "", text)
    assert not re.search(r"\\(frac|operatorname|sum|text|begin|left|cdot)\b|\$\$", visible)
    assert "{glue" not in text
    sizes = page.evaluate(
        "[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().width)"
    )
    assert all(width > 2 for width in sizes)


def test_no_traceback_no_path_and_the_smoke_banner(opened):
    page, _, _ = opened
    text = page.inner_text("body")
    assert "Traceback" not in text
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert "Smoke run" in text


def test_the_page_does_not_scroll_sideways(opened):
    page, _, _ = opened
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_links_between_pages_lead_somewhere(built):
    for name in PAGES:
        html = (built / f"{name}.html").read_text(encoding="utf-8")
        for target in re.findall(r'href="([\w/]+\.html)[#"]', html):
            assert (built / target).is_file(), f"{name} links to {target}"


def test_folded_answers_open_on_click(built, browser):
    page = browser.new_page()
    page.goto((built / "01_data_preparation.html").as_uri())
    answer = page.locator("article details").first
    paragraph = answer.locator("p").last
    assert not paragraph.is_visible()
    answer.locator("summary").click()
    assert paragraph.is_visible()
    page.close()


def test_site_is_small(built):
    assert sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) < 6 * 2**20
