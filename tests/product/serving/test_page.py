"""The page of the service in a browser."""

import http.server
import json
import threading

import pytest

from tests.course.test_pages import watch
from tests.product.serving.known import TEXTS, Reviewer, cues, http_get
from tests.timing import until
from viralbert.moments.subtitles import Cue, write_subtitles
from viralbert.serving.predictor import Predictor


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desk", "phone"])
def page(request, known, serve, browser):
    width, scheme = request.param
    url, _ = serve()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.requests, opened.messages = watch(opened)
    opened.goto(url)
    yield opened
    assert [asked for asked in opened.requests if not asked.startswith((url, "data:"))] == []
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()


def test_the_page_shows_emotions_and_moments(page, tmp_path):
    page.get_by_label("Russian text").fill(TEXTS[0])
    page.keyboard.press("Control+Enter")
    bars = page.locator("#text-result .bars li")
    bars.first.wait_for()
    assert bars.all_inner_texts()[0].split("\n") == ["viral", "80 %"]
    assert bars.all_inner_texts()[1].split("\n") == ["joy · радость", "80 %"]
    assert bars.count() == 29
    boxes = [
        page.locator(f"#text-result .bars li >> nth=1 >> .{name}").bounding_box()
        for name in ("fill", "track")
    ]
    assert boxes[0]["width"] == pytest.approx(0.8 * boxes[1]["width"], rel=0.02)
    write_subtitles([Cue(c["start"], c["end"], c["text"]) for c in cues()], tmp_path / "a.srt")
    page.get_by_label("Subtitle file").set_input_files(tmp_path / "a.srt")
    page.locator(".moments li").first.wait_for()
    assert page.locator(".moments li").count() == page.locator(".timeline div").count() >= 1
    assert "joy · радость" in page.locator(".moments li").first.inner_text()
    page.locator(".timeline div").first.click()
    assert page.evaluate("document.activeElement.id") == "moment-1"
    assert page.messages == []


def test_the_page_of_another_model_shows_its_classes_and_no_moments(monkeypatch, serve, browser):
    model = Reviewer()
    monkeypatch.setattr(Predictor, "load", lambda folder, device, precision: model)
    url, _ = serve()
    page = browser.new_page()
    _, messages = watch(page)
    page.goto(url)
    page.get_by_role("heading", name="A video").wait_for(state="hidden")
    assert "moments" not in page.locator("body").inner_text()
    page.get_by_label("Russian text").fill(TEXTS[0])
    page.get_by_role("button", name="Show the answer").click()
    bars = page.locator("#text-result .bars li")
    bars.first.wait_for()
    assert bars.all_inner_texts() == ["good\n70 %", "neutral\n20 %", "bad\n10 %"]
    assert page.locator("#text-result .bars li.reached").count() == 1
    assert page.locator("#text-result h3").all_inner_texts() == ["Reviews"]
    assert page.locator("#text-result > p").all_inner_texts() == ["good", "trained on one cat"]
    assert messages == []
    page.close()


def test_the_timeline_of_a_video_begins_where_its_subtitles_do(page, tmp_path):
    late = [Cue(c["start"] + 3600, c["end"] + 3600, c["text"]) for c in cues()]
    write_subtitles(late, tmp_path / "late.srt")
    page.get_by_label("Subtitle file").set_input_files(tmp_path / "late.srt")
    page.locator(".moments li").first.wait_for()
    assert page.locator(".ticks span").all_inner_texts() == [
        "1:00:00",
        "1:00:40",
        "1:01:20",
        "1:02:00",
        "1:02:40",
    ]
    assert "from 1:00:00 to 1:02:40" in page.locator(".timeline").get_attribute("aria-label")
    line = page.locator(".timeline").bounding_box()
    blocks = [block.bounding_box() for block in page.locator(".timeline div").all()]
    assert all(
        line["x"] - 1 <= block["x"] and block["x"] + block["width"] <= line["x"] + line["width"] + 1
        for block in blocks
    )
    assert blocks[0]["width"] >= 15 / 160 * line["width"]


def test_the_page_names_its_own_address(page):
    page.get_by_text("From a program").click()
    commands = page.get_by_label("Commands").inner_text().splitlines()
    here = page.url.rstrip("/")
    assert "localhost:8000" not in here
    assert commands[2] == f"curl {here}/v1/models"
    assert commands[-1].startswith(f"curl '{here}/v1/moments?n=3' --json")
    assert all(here in line for line in commands)


HTML = "<img src=x onerror=alert(1)> <script>alert(2)</script> Кот сам открыл дверь."


def test_the_page_shows_texts_as_they_are(page, tmp_path):
    dialogs = []
    page.on("dialog", lambda one: (dialogs.append(one.message), one.dismiss()))
    page.get_by_label("Russian text").fill(HTML)
    page.get_by_role("button", name="Show the answer").click()
    page.locator("#text-result .bars li").first.wait_for()
    own = [cue | {"text": f"{HTML} {cue['text']}"} for cue in cues()]
    (tmp_path / "<img src=x onerror=alert(3)>.json").write_text(json.dumps(own), encoding="utf-8")
    page.get_by_label("Subtitle file").set_input_files(
        tmp_path / "<img src=x onerror=alert(3)>.json"
    )
    page.locator(".moments li").first.wait_for()
    assert "<img src=x onerror=alert(1)>" in page.locator(".moments li").first.inner_text()
    assert page.locator("body :is(img, script)").count() == 0
    assert dialogs == page.messages == []


def test_the_page_says_what_is_wrong(page, tmp_path):
    page.evaluate(
        "document.getElementById('text').value = '<img src=x onerror=alert(1)> ' + "
        "'а'.repeat(30000)"
    )
    page.get_by_role("button", name="Show the answer").click()
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "at most 20000 characters" in problem.inner_text()
    (tmp_path / "<b>.srt").write_text("<i>ничего</i>", encoding="utf-8")
    page.get_by_label("Subtitle file").set_input_files(tmp_path / "<b>.srt")
    page.locator("#file-result .problem").wait_for()
    assert "no cue found" in page.locator("#file-result").inner_text()


def test_another_page_neither_frames_it_nor_asks_it(known, serve, browser):
    url, _ = serve()
    known.batches.clear()
    page = browser.new_page()
    another = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=another.serve_forever, daemon=True).start()
    page.goto(f"http://127.0.0.1:{another.server_port}/")  # its 501 is a page as good as any
    page.set_content(f"<iframe src='{url}'></iframe>")
    until(
        lambda: (
            page.frames[1].url.startswith("chrome-error") or (page.wait_for_timeout(50) and False)
        )
    )
    page.evaluate(
        """async (url) => {
      const form = new FormData();
      form.append('file', new Blob(['1\\n00:00:01,000 --> 00:00:20,000\\nКот.\\n']), 'a.srt');
      for (const [route, body] of [['moments', form], ['predict', '{"text": "а"}']]) {
        const what = { method: 'POST', mode: 'no-cors', body };
        await fetch(`${url}/v1/${route}`, what).catch(() => {});
      }
    }""",
        url,
    )
    told = http_get(f"{url}/metrics").text
    for route in ("moments", "predict"):
        assert f'viralbert_requests_total{{route="/v1/{route}",status="403"}} 1.0' in told
    assert known.batches == []
    page.close()
    another.shutdown()
    another.server_close()


def test_the_page_can_be_used_by_keyboard_and_read_aloud(page):
    names = page.evaluate(
        "[...document.querySelectorAll('input, textarea')].map(i => i.labels.length)"
    )
    assert len(names) == 5
    assert all(names)
    page.get_by_label("Russian text").focus()
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate("document.activeElement.textContent || document.activeElement.id")
        )
    assert order[0] == "Show the answer"
    assert order[-3:] == ["min-s", "max-s", "Find moments"]
    pairs = page.evaluate(CONTRASTS)
    assert len(pairs) > 10
    assert [pair for pair in pairs if pair[0] < 4.5] == []


# Contrast (WCAG) of every piece of text with the colour behind it, the smallest first.
CONTRASTS = """() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => rgb(c).slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    while (rgb(getComputedStyle(e).backgroundColor)[3] === 0) e = e.parentElement;
    return e;
  };
  return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() &&
      [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
    const colours = [getComputedStyle(e).color, getComputedStyle(behind(e)).backgroundColor];
    const [a, b] = colours.map(light);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.slice(0, 40)];
  }).sort((x, y) => x[0] - y[0]);
}"""
