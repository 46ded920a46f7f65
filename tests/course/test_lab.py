"""JupyterLab in a real browser: what somebody sees who opens a lesson and runs it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
import yaml

from tests.timing import until
from viralbert_utils.base.files import ROOT

SLOW_S = 400.0  # a minute where nothing else runs; only ends what would wait for ever
LESSON = "01_data_preparation.ipynb"
SETTINGS = ROOT / ".jupyter" / "lab.py"


@dataclass
class Lab:
    """A running JupyterLab, the copy of the repository it works in, and what a page asks for."""

    url: str
    copy: Path
    requests: list[str] = field(default_factory=list)

    def open(self, browser: Any, name: str) -> Any:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("request", lambda asked: self.requests.append(asked.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.goto(f"{self.url}/lab/tree/{name}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=1000 * SLOW_S)
        page.get_by_text("| Idle").wait_for(timeout=1000 * SLOW_S)  # the kernel in the status bar
        return page


def of_smoke(notebook: Path, copy: Path) -> None:
    """Write a lesson whose parameters are those of the smoke profile."""
    node = nbformat.read(notebook, as_version=4)
    (cell,) = (cell for cell in node.cells if cell.metadata.get("tags") == ["parameters"])
    profile = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    values = profile["common"] | (profile["notebooks"].get(notebook.stem) or {})
    for name, value in values.items():
        cell.source = re.sub(rf"(?m)^({name}: [^=]+ = ).*?(  #)", rf"\g<1>{value!r}\2", cell.source)
    nbformat.write(node, copy)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    copy = tmp_path_factory.mktemp("lab")
    (copy / "notebooks").mkdir()
    of_smoke(ROOT / "notebooks" / LESSON, copy / "notebooks" / LESSON)
    # Somebody who opens JupyterLab for the first time: no settings of their own.
    own = {f"JUPYTER_{name}_DIR": str(copy / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {
        "JUPYTERLAB_SETTINGS_DIR": str(copy / "s"),
        "JUPYTERLAB_WORKSPACES_DIR": str(copy / "w"),
    }
    own |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "jupyter", "lab", f"--config={SETTINGS}", "notebooks"]
    command += ["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token="]
    log = copy / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=copy, env=os.environ | own, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            address = re.compile(r"(http://(?:127\.0\.0\.1|localhost):\d+)/lab")
            until(lambda: address.search(log.read_text()), SLOW_S)
            yield Lab(address.search(log.read_text())[1], copy)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def lesson(lab, browser) -> Iterator[Any]:
    """The lesson as JupyterLab shows it when it was just opened."""
    page = lab.open(browser, LESSON)
    yield page
    page.close()


def test_no_news_and_no_newer_version_is_asked_for(lab):
    for name, empty in (("news", {"news": []}), ("update", {"notification": None})):
        assert httpx.get(f"{lab.url}/lab/api/{name}", timeout=SLOW_S).json() == empty


def test_opening_a_lesson_changes_nothing(lab, lesson):
    before = (lab.copy / "notebooks" / LESSON).read_bytes()
    lesson.wait_for_timeout(2000)  # what marks it comes with the kernel's first message
    assert lesson.locator(".jp-mod-dirty").count() == 0
    assert lesson.get_by_text("Jupyter news").count() == 0, "nobody is asked either"
    assert (lab.copy / "notebooks" / LESSON).read_bytes() == before


def test_sentences_drawing_and_bookkeeping_come_folded(lab, lesson):
    node = nbformat.read(lab.copy / "notebooks" / LESSON, as_version=4)
    hidden = [
        cell.cell_type == "code" and bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        for cell in node.cells
    ]
    folded = (
        "[...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(cell => "
        "!!cell.querySelector('.jp-InputPlaceholder'))"
    )
    # Cells further down are drawn when there is time.
    until(lambda: lesson.wait_for_timeout(200) or lesson.evaluate(folded) == hidden, SLOW_S)
    assert any(hidden) and not all(hidden)


def test_after_run_all_the_page_reads_like_the_lesson(lab, lesson):
    lesson.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    lesson.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
    prompts = (
        "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')]"
        ".map(prompt => prompt.textContent)"
    )
    # A folded cell shows no number: the last open one has run, and then nothing runs any more.
    node = nbformat.read(lab.copy / "notebooks" / LESSON, as_version=4)
    code = [cell.metadata for cell in node.cells if cell.cell_type == "code"]
    n_last = max(
        n for n, own in enumerate(code, 1) if not own.get("jupyter", {}).get("source_hidden")
    )
    until(
        lambda: lesson.wait_for_timeout(500) or lesson.evaluate(prompts)[-1:] == [f"[{n_last}]:"],
        SLOW_S,
    )
    lesson.get_by_text("| Idle").wait_for(timeout=1000 * SLOW_S)
    lesson.wait_for_timeout(1000)
    prose = lesson.evaluate(
        "[...document.querySelectorAll('.jp-RenderedMarkdown')].map(part => {"
        "  const copy = part.cloneNode(true);"
        "  copy.querySelectorAll('code, mjx-container, .MathJax').forEach(node => node.remove());"
        "  return copy.textContent}).join('\\n')"
    )
    assert len(prose.split()) > 500
    assert not re.search(r"\{[a-z][\w.-]*(:[^{} ]*)?\}|\{glue|\{eval", prose)
    assert re.search(r"\d\.\d\d \[\d\.\d\d|\d+\.\d{3} \[", prose), "a figure with its interval"
    assert lesson.locator(".jp-OutputArea img").count() >= 3
    assert lesson.locator(".jp-OutputArea .jp-RenderedHTML table").count() >= 2
    assert lesson.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


def test_no_other_host_was_asked_for_anything(lab, lesson):
    assert len(lab.requests) > 10
    inside = rf"({lab.url}|{lab.url.replace('http', 'ws', 1)})/|data:|blob:"
    assert [url for url in lab.requests if not re.match(inside, url)] == []
