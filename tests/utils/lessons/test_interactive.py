"""Interactive figures: what they refuse, what they send, and what a reader can do with them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from playwright.sync_api import expect

from viralbert_utils import lesson
from viralbert_utils.lessons import interactive

PNG = bytes.fromhex("89504e470d0a1a0a")
NAMES = ["joy · радость", "fear · страх", "anger · злость"]


def threshold() -> interactive.InteractiveFigure:
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 0]])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.2], [0.5, 0.7], [0.1, 0.1]])
    return interactive.threshold_figure(labels, probabilities, NAMES[:2], [0.45, 0.3])


def matrix() -> interactive.InteractiveFigure:
    values = pd.DataFrame(
        [[1, 0.5, -0.25], [0.5, 1, np.nan], [-0.25, np.nan, 1]], list("abc"), list("abc")
    )
    counts = pd.DataFrame([[9, 4, 1], [4, 8, 0], [1, 0, 7]], list("abc"), list("abc"))
    return interactive.matrix_figure(values, counts, shown=dict(zip("abc", NAMES, strict=True)).get)


def timeline() -> interactive.InteractiveFigure:
    lines = pd.DataFrame(
        {
            "start": [0.0, 30.0, 70.0],
            "end": [20.0, 60.0, 90.0],
            "text": ["Раз", "</script><script>alert(1)</script>", "Три & четыре"],
            "score": [0.25, 0.75, 0.5],
        }
    )
    return interactive.timeline_figure(lines, {"gold": [(28, 62)], "chosen": [(65, 90), (0, 15)]})


MADE = {"threshold": threshold, "matrix": matrix, "timeline": timeline}


def test_shapes_that_do_not_fit_are_refused():
    square = np.zeros((3, 2))
    with pytest.raises(ValueError, match="expected"):
        interactive.threshold_figure(square, np.zeros((2, 2)), ["a", "b"], [0.5, 0.5])
    with pytest.raises(ValueError, match="1 names and 2 thresholds for 2 classes"):
        interactive.threshold_figure(square, square, ["a"], [0.5, 0.5])
    with pytest.raises(ValueError, match="between 0 and 1"):
        interactive.threshold_figure(square, square + np.nan, ["a", "b"], [0.5, 0.5])
    values = pd.DataFrame(np.eye(2), ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="counts must have"):
        interactive.matrix_figure(values, values.iloc[:, :1])
    with pytest.raises(ValueError, match="same names on both sides"):
        interactive.matrix_figure(values.iloc[:, ::-1], values)
    with pytest.raises(ValueError, match="missing: score"):
        interactive.timeline_figure(pd.DataFrame({"start": [0], "end": [1], "text": ["x"]}), {})


@pytest.mark.parametrize("kind", MADE)
def test_no_text_ends_the_script_that_it_stands_in(kind):
    html = MADE[kind]().html(PNG, 'Says "five" words & <more>.')
    assert html.count("</script>") == 2
    data = re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1]
    assert not set("<>&\u2028") & set(data)
    assert json.loads(data) == MADE[kind]().data
    assert 'alt="Says &quot;five&quot; words &amp; &lt;more&gt;."' in html


def test_a_notebook_gets_both_the_picture_and_the_live_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "display", lambda data, **_: shown.append(data))
    lesson.show(plt.figure(), "A figure that says nothing at all.", live=matrix())
    lesson.show(plt.figure(), "A figure that says nothing at all.")
    assert set(shown[0]) == {"image/png", "text/html", "text/plain"}
    assert set(shown[1]) == {"image/png", "text/plain"}


@pytest.fixture(params=MADE)
def page(request, browser, tmp_path):
    path = tmp_path / "page.html"
    html = MADE[request.param]().html(PNG, "A figure with a few words.")
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{html}</body>", encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 900}, offline=True)
    opened = context.new_page()
    opened.problems = []
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("dialog", lambda dialog: opened.problems.append(dialog.message))
    opened.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(("file:", "data:")) else opened.problems.append(asked.url)
        ),
    )
    opened.goto(path.as_uri())
    yield opened
    assert opened.problems == []
    context.close()


def words(page) -> str:
    return page.inner_text("output")


@pytest.mark.parametrize("page", ["threshold"], indirect=True)
def test_moving_the_threshold_says_what_it_costs(page):
    assert words(page) == (
        "Threshold 0.450: joy · радость for 2 of 4 texts, 1 of them rightly. Precision 0.50, "
        "recall 0.50, F1 0.50. Cost: 1 wrong yes × 1 + 1 wrong no × 3 = 4."
    )
    page.focus("input[type=range]")
    page.keyboard.press("Home")
    assert "for 3 of 4 texts, 2 of them rightly. Precision 0.67, recall 1.00, F1 0.80." in words(
        page
    )
    page.keyboard.press("End")
    assert "for none of 4 texts. Precision undefined, recall 0.00, F1 0.00." in words(page)
    page.focus("svg")
    for _ in range(400):
        page.keyboard.press("Shift+ArrowLeft")
    assert "for 3 of 4 texts" in words(page)
    page.select_option("select", "1")
    assert words(page).startswith(
        "Threshold 0.300: fear · страх for 1 of 4 texts, 1 of them rightly."
    )
    page.locator("svg").click(position={"x": 45, "y": 100})
    assert not words(page).startswith("Threshold 0.300")
    page.click("button")
    assert words(page).startswith("Threshold 0.300")


@pytest.mark.parametrize("page", ["matrix"], indirect=True)
def test_a_pair_of_the_matrix_says_its_value_and_counts(page):
    pair = "fear · страх and joy · радость: phi 0.500; texts with both 4, with each 8 and 9."
    assert words(page) == pair
    page.focus("svg")
    page.keyboard.press("ArrowDown")
    other = "anger · злость and joy · радость: phi -0.250; texts with both 1, with each 7 and 9."
    assert words(page) == other
    page.keyboard.press("ArrowRight")
    assert "anger · злость and fear · страх: phi undefined; texts with both 0" in words(page)
    page.keyboard.press("ArrowRight")
    assert words(page) == "anger · злость: texts with it 7."
    cells = page.locator("svg rect")
    cells.nth(0).hover()
    assert words(page) == pair
    cells.nth(1).hover()
    assert words(page) == other
    page.select_option("select >> nth=1", "2")
    assert words(page) == "anger · злость: texts with it 7."


@pytest.mark.parametrize("page", ["timeline"], indirect=True)
def test_lines_and_moments_of_the_timeline_are_read_out(page):
    assert words(page) == "0:00–0:20, virality 0.25: «Раз» In: chosen 2."
    page.click("text=Next line")
    script = "«</script><script>alert(1)</script>»"
    assert words(page) == f"0:30–1:00, virality 0.75: {script} In: gold 1."
    page.click("text=Next moment")
    assert words(page) == "chosen, number 1: 1:05–1:30, mean virality 0.50: «Три & четыре»"
    page.focus("svg")
    page.keyboard.press("ArrowUp")
    assert words(page) == f"gold, number 1: 0:28–1:02, mean virality 0.75: {script}"
    page.keyboard.press("ArrowUp")
    assert words(page).startswith("chosen, number 2: 0:00–0:15")
    page.locator("svg rect").nth(2).hover()
    assert "Три" in words(page)
    page.locator("svg rect").last.hover()
    assert words(page).startswith("chosen, number 2")


@pytest.mark.parametrize("page", MADE, indirect=True)
def test_a_figure_fits_a_phone_and_leaves_its_picture_to_print(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    expect(page.locator("img.still")).to_be_hidden()
    page.emulate_media(media="print")
    expect(page.locator("img.still")).to_be_visible()
    expect(page.locator(".stage")).to_be_hidden()
