"""What folds on the site and in the committed Markdown, and the way on the first page."""

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from viralbert.course import first_page, report, runner
from viralbert.course.catalogue import Notebook
from viralbert.course.report import HEADLINE
from viralbert.course.runner import Run

PARAMETERS = "data: str = 'sample'  # source"
FURTHER = """## Further: the third way

A zebra hides here.

### Its stripes

See [threshold](../docs/glossary.md#threshold)."""


@pytest.fixture
def folded(tiny_course) -> Run:
    """A course of one lesson with all that folds, and a glossary."""
    run = tiny_course([PARAMETERS, "# Draw <it>\nprint('drawn')", "# Solution\nprint(6 * 7)"])
    path = run.notebooks[0].path
    node = nbformat.read(path, as_version=4)
    node.cells[2].metadata["tags"] = ["hide-input"]
    node.cells[3].metadata["tags"] = ["solution", "hide-input"]
    node.cells.append(nbformat.v4.new_markdown_cell(FURTHER))
    node.cells.append(nbformat.v4.new_code_cell("print('## no heading')"))
    node.cells.append(nbformat.v4.new_markdown_cell("## Summary\n\nThe end."))
    nbformat.write(node, path)
    docs = run.root / "docs"
    docs.mkdir()
    (docs / "README.md").write_text("[Glossary](glossary.md)")
    (docs / "glossary.md").write_text("# Glossary\n\n## Threshold\n\n*порог.* A number.\n")
    (run.root / "README.md").write_text("\n".join(["# T", *HEADLINE]))
    run = Run(root=run.root)
    runner.run(run)
    report.report(run)
    return run


def test_folds_of_the_committed_page(folded):
    text = (folded.report / "01_lesson.md").read_text(encoding="utf-8")
    assert "<details><summary>Draw &lt;it&gt;</summary>" in text
    before, _, rest = text.partition("<details><summary>Solution and result</summary>")
    solution, _, after = rest.partition("</details>")
    assert "6 * 7" in solution
    assert "42" in solution
    assert "42" not in before + after
    _, _, further = after.partition(
        "## Further: the third way\n\n<details><summary>Read this part</summary>\n"
    )
    inside, _, outside = further.partition("</details>")
    assert "zebra" in inside
    assert "## no heading" in inside
    assert "## Summary" in outside
    assert "[threshold](../docs/glossary.md#threshold)" in inside
    assert text.count("<details>") == text.count("</details>") == 3


@pytest.fixture
def opened(folded, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.site = (folded.report / "site").as_uri()
    page.goto(f"{page.site}/01_lesson.html")
    yield page
    page.close()


def test_a_solution_hides_its_result_until_it_is_opened(opened):
    result = opened.get_by_text("42", exact=True)
    expect(result).to_be_hidden()
    opened.click("summary >> text=Solution and result")
    expect(result).to_be_visible()
    expect(opened.get_by_text("drawn", exact=True)).to_be_visible()
    expect(opened.locator("summary >> text=Draw <it>").first).to_be_visible()


def test_a_link_and_a_search_open_the_fold_that_they_lead_into(opened):
    zebra = opened.get_by_text("A zebra hides here.")
    expect(zebra).to_be_hidden()
    expect(opened.get_by_text("The end.")).to_be_visible()
    opened.goto(f"{opened.site}/01_lesson.html#its-stripes")
    expect(zebra).to_be_visible()
    opened.goto(f"{opened.site}/index.html")
    opened.goto(f"{opened.site}/01_lesson.html#further-the-third-way")
    expect(zebra).to_be_visible()
    opened.goto(f"{opened.site}/index.html")
    opened.goto(f"{opened.site}/01_lesson.html?highlight=zebra")
    expect(opened.locator("article .highlighted")).to_be_visible()
    opened.goto(f"{opened.site}/01_lesson.html")
    opened.click("details.on-page summary")
    opened.click("details.on-page >> text=Its stripes")
    opened.get_by_text("A zebra hides here.").wait_for()


def test_a_term_leads_to_the_glossary(opened):
    opened.click("summary >> text=Read this part")
    opened.click("article >> text=threshold")
    expect(opened).to_have_url(f"{opened.site}/docs/glossary.html#threshold")
    expect(opened.get_by_text("порог")).to_be_visible()


def test_folds_open_for_print_and_close_again(opened):
    folds = "document.querySelectorAll('article details[open]').length"
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate(folds) == 3  # the list of contents is for the screen
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.evaluate(folds) == 0


def test_code_is_folded_on_a_phone_and_copied_on_a_desk(opened):
    code = opened.get_by_text("print('## no heading')")
    assert opened.locator(".code-fold").count() == 0
    opened.click("summary >> text=Read this part")
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy = opened.locator(".cell", has=code).locator("button.copy")
    copy.focus()
    copy.click()
    opened.get_by_text("Copied", exact=True).wait_for()
    assert opened.evaluate("navigator.clipboard.readText()") == "print('## no heading')\n"
    opened.set_viewport_size({"width": 390, "height": 900})
    opened.reload()
    opened.click("summary >> text=Read this part")
    expect(code).to_be_hidden()
    opened.locator(".code-fold", has=code).locator("summary").click()
    expect(code).to_be_visible()


# The way through the lessons ----------------------------------------------------------------------


def lesson(number: int, reads: list[str], leaves: list[str], needs: str = "") -> Notebook:
    made = Notebook(Path(f"0{number}_x.ipynb"))
    made.__dict__["content"] = {
        "metadata": {"viralbert": {"reads": reads, "leaves": leaves}},
        "cells": [{"cell_type": "markdown", "source": f"## Before you start\n\n{needs}"}],
    }
    return made


def test_a_lesson_needs_those_whose_results_it_reads_and_no_others():
    lessons = [
        lesson(1, ["data:emotions"], ["run:t"]),
        lesson(2, ["data:videos"], []),
        lesson(3, ["run:t"], ["run:m"]),
        lesson(4, ["run:t", "run:m"], []),
    ]
    assert first_page.needs(lessons) == {"01": [], "02": [], "03": ["01"], "04": ["03"]}
    titles = {made.name: f"0{i}. <T>" for i, made in enumerate(lessons, 1)}
    site, markdown = first_page.way(lessons, titles, dict.fromkeys(titles, 7))
    assert "01 leads to 03; 03 leads to 04." in site
    assert site.count("<path") == 2
    assert [len(re.findall(sign, site)) for sign in ("<circle", "<li>", "&lt;T&gt;")] == [4, 4, 4]
    assert "7 minutes, start here" in site
    assert "7 minutes, stands alone" in site
    assert "| [04. <T>](04_x.ipynb) | 7 | - | 03 |" in markdown


def test_a_lesson_without_files_of_others_may_have_lessons_to_read_first():
    table = "| needs | why |\n|---|---|\n| lesson 01 | a |\n| [lesson 02](2.ipynb) | lesson 05 |\n"
    lessons = [
        lesson(1, [], ["run:t"]),
        lesson(2, ["run:t"], [], "| lesson 01 | tables |"),
        lesson(3, ["data:videos"], [], f"{table}| lesson 04 | c |"),
    ]
    assert first_page.read_first(lessons[2]) == ["01", "02", "04"]
    titles = {made.name: made.name for made in lessons}
    site, markdown = first_page.way(lessons, titles, dict.fromkeys(titles, 7))
    assert "7 minutes, start here" in site
    assert "7 minutes, read 01 first<" in site
    assert "7 minutes, read 01, 02 and 04 first; uses no files of other lessons<" in site
    assert "| [03_x](03_x.ipynb) | 7 | 01, 02, 04 | - |" in markdown


def test_reading_takes_longer_with_more_words_and_not_with_folded_code():
    new = nbformat.v4
    page = new.new_notebook(cells=[new.new_markdown_cell("word " * 1800)])
    assert first_page.reading_minutes(page) == 10
    page.cells.append(new.new_code_cell("x\n" * 125))
    assert first_page.reading_minutes(page) == 15
    page.cells[1].metadata["tags"] = ["hide-input"]
    assert first_page.reading_minutes(page) == 10
