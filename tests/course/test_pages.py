"""The built pages in headless Chromium, without network: what a reader of the report sees."""

import ast
import re
from pathlib import Path

import axe_playwright_python
import nbformat
import pytest
from playwright.sync_api import expect

from tests.timing import until
from viralbert.course import catalogue, manuals, reference, report
from viralbert.course.runner import ROOT, Run

LESSONS = [notebook.name for notebook in catalogue.notebooks()]
MANUALS = [f"docs/{path.stem}" for path in manuals.manuals(ROOT)]
ROOMS = [f"api/{room}" for room in reference.rooms()]
PAGES = ["index", *LESSONS, *MANUALS, *ROOMS]
WIDTHS = {"desk": 1280, "phone": 390}
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
# What is on its way to another colour has neither of the two.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"


@pytest.fixture(scope="module")
def built(smoke):
    return report.report(Run("smoke")).parent


# What the page says outside of code and formulas.
PROSE = """(() => {
  const article = document.querySelector("article").cloneNode(true);
  article.querySelectorAll("pre, code, math, script, style").forEach((node) => node.remove());
  return article.textContent;
})()"""


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
        "i.clientWidth, i.clientHeight, i.checkVisibility()])"
    )
    for alt, natural, width, height, seen in images:
        assert len(alt.split()) >= 5
        assert natural > 50
        assert min(width, height) > 50 or not seen  # in a fold, or an interactive figure's still
    if any(f"/{name}.html" in page.url for name in LESSONS):
        assert len(images) >= 3


def test_formulas_are_drawn_and_none_is_left_as_latex(opened):
    page, _, _ = opened
    text = page.inner_text("article")
    visible = re.sub(r"`[^`]*`", "", text)
    assert not re.search(r"\\(frac|operatorname|sum|text|begin|left|cdot)\b|\$\$", visible)
    if "/api/" not in page.url:  # the reference says how a field is written
        assert not re.search(r"\{[a-z][\w.-]*(:[^{} ]*)?\}", page.evaluate(PROSE)), (
            "no field is left"
        )
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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(opened, theme):
    page, _, _ = opened
    page.add_style_tag(content=STILL)
    page.evaluate(f"document.body.dataset.theme = '{theme}'")
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    told = [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in found]
    assert told == []


def test_axe_finds_what_is_wrong(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<img src='x.png'><p style='color: #ddd; background: white'>faint</p>")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert {"image-alt", "color-contrast", "html-has-lang"} <= {rule["id"] for rule in found}
    page.close()


def test_contents_are_at_hand_at_every_width(built, browser):
    page = browser.new_page()
    page.goto((built / "01_data_preparation.html").as_uri())
    at_hand = """() => {
        const box = document.querySelector(".toc-drawer").getBoundingClientRect();
        const beside = document.querySelector(".toc-drawer .toc-tree a") && box.left < innerWidth;
        const fold = document.querySelector("details.on-page summary");
        return Boolean(beside || (fold && fold.checkVisibility()));
    }"""
    for width in (390, 768, 1024, 1280, 1400, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(at_hand)  # furo slides its list in
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_wide_table_scrolls_and_keeps_its_first_column(built, browser, theme):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((built / "01_data_preparation.html").as_uri())
    page.evaluate(f"document.body.dataset.theme = '{theme}'")
    table = page.locator(".wide:has(table)").first
    table.scroll_into_view_if_needed()
    cell = table.locator("td").first
    before = cell.bounding_box()["x"]
    table.evaluate("box => { box.scrollLeft = 60; }")
    assert table.evaluate("box => box.scrollLeft") > 0
    assert abs(cell.bounding_box()["x"] - before) < 2
    assert table.evaluate("box => getComputedStyle(box).backgroundImage").count("gradient") == 4
    assert table.evaluate("box => box.tabIndex") == 0
    page.close()


def test_figures_are_turned_over_in_the_dark_and_not_in_print(built, browser):
    page = browser.new_page(color_scheme="dark")
    page.goto((built / "01_data_preparation.html").as_uri())
    turned = "getComputedStyle(document.querySelector('.cell_output img')).filter"
    assert "invert" in page.evaluate(turned)
    page.evaluate("document.body.dataset.theme = 'light'")
    assert page.evaluate(turned) == "none"
    page.evaluate("document.body.dataset.theme = 'dark'")
    assert "invert" in page.evaluate(turned)
    page.emulate_media(media="print")
    assert page.evaluate(turned) == "none"
    page.close()


def test_lesson_names_stand_once_on_the_first_page(built, browser):
    page = browser.new_page()
    page.goto((built / "index.html").as_uri())
    text = page.inner_text("article")
    for notebook in catalogue.notebooks():
        title = notebook.node.cells[0].source.partition("\n")[0].lstrip("# ")
        assert text.count(title) == 1, title
    lines, circles = (page.locator(f".way {part}").count() for part in ("path", "circle"))
    assert (lines, circles) == (6, len(LESSONS))
    page.close()


def test_links_between_pages_lead_somewhere(built):
    for name in PAGES:
        page = built / f"{name}.html"
        for target in re.findall(r'href="([\w./-]+\.html)[#"]', page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{name} links to {target}"


def test_navigation_leads_to_every_lesson_manual_and_room(built):
    first = (built / "index.html").read_text(encoding="utf-8")
    navigation = first.partition('class="sidebar-tree"')[2].partition("</aside>")[0]
    targets = re.findall(r'href="([^"#]+)\.html"', navigation)
    assert targets == [*LESSONS, *MANUALS, *ROOMS]
    assert "<h1>ViralBERT course: the report" in first


def test_every_public_function_and_class_has_its_place_in_the_reference(built):
    n_found = 0
    for room, modules in reference.rooms().items():
        html = (built / "api" / f"{room}.html").read_text(encoding="utf-8")
        for module in modules:
            assert f'id="module-{module}"' in html
            for statement in ast.parse(reference.path_of(module).read_text(encoding="utf-8")).body:
                public = isinstance(statement, ast.FunctionDef | ast.ClassDef)
                if public and not statement.name.startswith("_"):
                    assert f'id="{module}.{statement.name}"' in html
                    n_found += 1
    assert n_found > 200


def test_lessons_and_reference_lead_to_each_other(built):
    for notebook in catalogue.notebooks():
        page = (built / f"{notebook.name}.html").read_text(encoding="utf-8")
        section = page.partition('id="code-of-this-lesson"')[2]
        for module, names in reference.code_of(notebook).items():
            room = module.rpartition(".")[0]
            for anchor in [f"module-{module}", *(f"{module}.{name}" for name in names)]:
                assert f'href="api/{room}.html#{anchor}"' in section, f"{notebook.name}: {anchor}"
            back = (built / "api" / f"{room}.html").read_text(encoding="utf-8")
            assert f'href="../{notebook.name}.html"' in back


def test_manuals_and_lessons_lead_to_each_other(built):
    for manual in manuals.manuals(ROOT):
        page = (built / "docs" / f"{manual.stem}.html").read_text(encoding="utf-8")
        for lesson in manuals.lessons_of(manual):
            assert f'href="../{lesson}.html"' in page
            back = (built / f"{lesson}.html").read_text(encoding="utf-8")
            assert f'href="docs/{manual.stem}.html"' in back.partition("Manuals: ")[2]
    named = set().union(*map(manuals.lessons_of, manuals.manuals(ROOT)))
    assert len(named) >= 8


def test_folded_answers_open_on_click(built, browser):
    page = browser.new_page()
    page.goto((built / "01_data_preparation.html").as_uri())
    answer = page.locator("article details:has(> p)").first
    paragraph = answer.locator("p").last
    expect(paragraph).to_be_hidden()
    answer.locator("summary").click()
    expect(paragraph).to_be_visible()
    page.close()


def test_the_executed_notebook_can_be_downloaded(built, browser):
    context = browser.new_context(offline=True)
    page = context.new_page()
    for name in LESSONS:
        page.goto((built / f"{name}.html").as_uri())
        link = page.get_by_text("Download this notebook as it was executed")
        expect(link).to_be_visible()
        target = built / link.get_attribute("href")
        text = target.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), name
        node = nbformat.reads(text, as_version=4)
        assert any(cell.get("outputs") for cell in node.cells)
    context.close()


def test_site_is_small(built):
    assert sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) < 20 * 2**20
