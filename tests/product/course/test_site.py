import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from sphinx.errors import ExtensionError

from viralbert.course import catalogue, report, runner
from viralbert.course.catalogue import CourseError
from viralbert.course.mathml import to_mathml
from viralbert.course.report import HEADLINE, RECORD_MIME, Page
from viralbert.course.runner import Run
from viralbert_utils.base.files import ROOT

REPORTS = ROOT / "reports"


def page(*cells: nbformat.NotebookNode) -> Page:
    node = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# 01. Title\n\nText"), *cells]
    )
    return Page("01_title", node, {}, {}, 0.0)


def output(**data: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output(
        "display_data", {k.replace("__", "/"): v for k, v in data.items()}
    )


def test_figures_need_alt_text_and_a_cell_of_their_own():
    figure = output(image__png="aGk=")
    with pytest.raises(CourseError, match="01_title, cell 2: a figure without alt text"):
        report.prepare(page(nbformat.v4.new_code_cell("show", outputs=[figure])), "", "o")
    figure.metadata = {"image/png": {"alt": "Five bars of equal height."}}
    with pytest.raises(CourseError, match="2 figures in one cell"):
        report.prepare(page(nbformat.v4.new_code_cell("show", outputs=[figure, figure])), "", "o")
    good = report.prepare(page(nbformat.v4.new_code_cell("show", outputs=[figure])), "", "o")
    assert good.cells[1].metadata["mystnb"]["image"]["alt"] == "Five bars of equal height."


def said(*texts: str, given: dict | None = None) -> nbformat.NotebookNode:
    """A cell of `lesson.say` as a run leaves it: what it was given, then its paragraphs."""
    records = [
        output(**{RECORD_MIME: {"name": name, "value": value}})
        for name, value in (given or {}).items()
    ]
    shown = [output(text__markdown=text, text__plain=text) for text in texts]
    return nbformat.v4.new_code_cell('lesson.say("{n} texts")', outputs=[*records, *shown])


def test_a_sentence_with_numbers_becomes_prose():
    executed = page(said("*7* texts, see [02](02_next.ipynb#part)", given={"n": 7}))
    prepared = report.prepare(executed, "", "o", ["02_next"])
    assert [cell.cell_type for cell in prepared.cells] == ["markdown", "markdown"]
    assert prepared.cells[1].source == "*7* texts, see [02](index.md#not-part-of-this-run)"
    assert prepared.cells[1].id == executed.node.cells[1].id
    assert report.read_records(executed.node) == {"n": 7}
    assert executed.node.cells[1].cell_type == "code", "the executed notebook stays as it is"
    nbformat.validate(prepared)


def test_a_sentence_that_was_not_said_stops_the_report():
    with pytest.raises(CourseError, match="01_title, cell 2: the sentence was not shown"):
        report.prepare(page(said(given={"n": 7})), "", "o")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "# Draw precision against the threshold.\nfigure = 1",
            "Draw precision against the threshold",
        ),
        ("#Draw", "Draw"),
        ("figure = 1  # drawn", "Code"),
    ],
)
def test_folded_code_says_what_it_is(source, expected):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["hide-input"]})
    shown = report.prepare(page(cell), "", "o").cells[1]
    assert report.caption(cell) == expected
    assert shown.metadata["mystnb"]["code_prompt_show"] == expected


def test_progress_bars_stay_out_of_the_report():
    """They would ask a host for a program that moves them."""
    bar = output(
        **{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text__plain": "0%"}
    )
    executed = page(nbformat.v4.new_code_cell("fit()", outputs=[bar, output(text__plain="done")]))
    executed.node.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    prepared = report.prepare(executed, "", "o")
    assert [o.data for o in prepared.cells[1].outputs] == [{"text/plain": "done"}]
    assert "widgets" not in prepared.metadata


def test_printed_pieces_are_joined_and_redrawn_lines_dropped():
    def stream(name: str, *texts: str) -> list[nbformat.NotebookNode]:
        return [nbformat.v4.new_output("stream", name=name, text=text) for text in texts]

    outputs = [
        *stream("stdout", "one\n", "two\r\n"),
        *stream("stderr", "\rbuilt: 00:00", "\rbuilt: 00:02", "\n", "a warning\n"),
        *stream("stderr", "\r 50%", "\r100%\n"),
        output(text__plain="7"),
        *stream("stderr", "\rbuilt: 00:00", "\n"),
        *stream("stdout", "three\n"),
    ]
    executed = page(nbformat.v4.new_code_cell("fit()", outputs=outputs))
    shown = report.prepare(executed, "", "o").cells[1].outputs
    assert [o.get("text") for o in shown] == ["one\ntwo\r\n", "a warning\n", None, "three\n"]
    assert len(executed.node.cells[1].outputs) == 12, "the executed notebook stays as it is"


def test_recording_twice_under_one_name_is_an_error():
    entry = output(**{RECORD_MIME: {"name": "n", "value": 1}})
    with pytest.raises(CourseError, match="'n' is recorded twice"):
        report.read_records(page(nbformat.v4.new_code_cell("x", outputs=[entry, entry])).node)


def test_banner_and_origin_stand_under_the_title():
    prepared = report.prepare(page(), "Smoke run.", "From a run.")
    assert prepared.cells[0].source.splitlines()[:6] == [
        "# 01. Title",
        "",
        "> **Smoke run.**",
        "",
        "*From a run.*",
        "",
    ]


@pytest.mark.parametrize(
    "formula",
    [
        r"\frac{N}{C\,n_k}",
        r"\operatorname{argmax}_k w_k",
        r"g_1 - \frac{g_1 \cdot g_2}{\lVert g_2 \rVert^2}\, g_2",
        r"\begin{cases} 1 & x \ge t \\ 0 & x < t \end{cases}",
        r"\sum_{i=1}^{n} \log p_i",
        r"\sqrt{\mathbf{x}^\top \mathbf{y}}",
        r"\hat{y} \in \{0, 1\}",
    ],
)
def test_formulas_become_mathml(formula):
    result = to_mathml(formula)
    assert result.startswith("<math")
    assert "\\" not in result


def test_unknown_macro_fails_the_build():
    with pytest.raises(ExtensionError, match=r"a macro is not known, rewrite it"):
        to_mathml(r"\unheardof{x}")


def test_nothing_executed_yet(tiny_course):
    with pytest.raises(CourseError, match="nothing was executed for the run 'sample' yet"):
        report.report(tiny_course(["data: str = 'sample'"]))


def test_whole_report_of_a_tiny_course(tiny_course, tmp_path):
    record = "from viralbert_utils import lesson\nlesson.finish()"
    say = 'lesson.say("""Half is {half:.2f}, $x^2$. [Again](01_lesson.ipynb).""", half=0.5)'
    run = tiny_course(["data: str = 'sample'  # source", record, say], banner="A test.")
    (run.root / "README.md").write_text("\n".join(["# T", *HEADLINE]))
    run = Run(root=run.root)
    runner.run(run)
    first = report.report(run)
    html = (first.parent / "01_lesson.html").read_text(encoding="utf-8")
    assert "Half is 0.50" in html
    assert "lesson.say" not in html, "prose, not code"
    link = (
        '<a href="executed/01_lesson.ipynb" download>Download this notebook as it was executed</a>'
    )
    assert html.index("</h1>") < html.index(link) < html.index("Half is 0.50")
    download = nbformat.read(first.parent / "executed" / "01_lesson.ipynb", as_version=4)
    nbformat.validate(download)
    assert any("Half is 0.50" in str(cell.get("outputs")) for cell in download.cells)
    assert set(download.metadata) <= {"kernelspec", "language_info"}
    assert str(tmp_path) not in nbformat.writes(download)
    assert "<msup>" in html
    assert re.search(r'<a [^>]*href="#?[^"]*">[^A]*Again', html)
    assert "A test." in html
    assert "A test." in first.read_text(encoding="utf-8")
    markdown = (run.report / "01_lesson.md").read_text(encoding="utf-8")
    assert "Half is 0.50" in markdown
    assert "[Again](01_lesson.md)" in markdown
    names = {"01_lesson.md", "README.md", "manifest.json", "metrics.json", "site"}
    assert {path.name for path in run.report.iterdir()} == names
    assert json.loads((run.report / "metrics.json").read_text())["01_lesson"] == {"half": 0.5}
    manifest = json.loads((run.report / "manifest.json").read_text())
    assert manifest["notebooks"]["01_lesson"]["peak_memory_mib"] > 10
    before = first.stat().st_mtime_ns
    (run.report / "metrics.json").unlink()
    (run.report / "README.md").write_text("overwritten")
    assert report.report(Run(root=run.root)).stat().st_mtime_ns == before
    assert json.loads((run.report / "metrics.json").read_text())["01_lesson"] == {"half": 0.5}
    assert "overwritten" not in (run.report / "README.md").read_text()


def test_a_report_of_some_lessons_leaves_the_whole_one_alone(tiny_course):
    run = tiny_course(["data: str = 'sample'  # source"], ["data: str = 'sample'  # source"])
    (run.root / "reports").mkdir()
    (run.root / "reports" / "02_lesson.md").write_text("whole")
    (run.root / "README.md").write_text("\n".join(["# T", *HEADLINE]))
    runner.run(replace(run, only=("01",)))
    assert report.report(run) == run.folder / "report" / "site" / "index.html"
    assert (run.root / "reports" / "02_lesson.md").read_text() == "whole"
    runner.run(run)
    assert report.report(run) == run.root / "reports" / "site" / "index.html"
    assert (run.root / "reports" / "02_lesson.md").read_text() != "whole"


def write_on(run: Run, text: str) -> Run:
    """The course with one more paragraph in its first lesson."""
    node = nbformat.read(run.notebooks[0].path, as_version=4)
    node.cells.append(nbformat.v4.new_markdown_cell(text))
    nbformat.write(node, run.notebooks[0].path)
    return replace(run)


@pytest.mark.parametrize(
    "target", ["missing.ipynb", "03_missing.ipynb", "02_lesson_missing.ipynb#part"]
)
def test_a_warning_fails_the_build(tiny_course, target):
    cells = ["data: str = 'sample'  # source", "1"]
    run = replace(write_on(tiny_course(cells, cells), f"[nowhere]({target})"), only=["01"])
    runner.run(run)
    with pytest.raises(CourseError, match=r"(?s)could not be built cleanly.*missing"):
        report.report(run)


def test_links_to_lessons_that_did_not_run_lead_to_how_to_run_them(
    tiny_course, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data").mkdir()
    cells = ["data: str = 'sample'  # source\nepochs: int = 1  # passes", "1"]
    text = (
        "[Next](02_lesson.ipynb), [its part](02_lesson.ipynb#02-lesson), "
        "[this one](01_lesson.ipynb)."
    )
    run = write_on(tiny_course(cells, cells), text)
    some = replace(run, data="my data", settings=["01.epochs=2", "02.epochs=3"], only=["01"])
    runner.run(some)
    first = report.report(some)
    assert '<section id="not-part-of-this-run">' in first.read_text(encoding="utf-8")
    html = (first.parent / "01_lesson.html").read_text(encoding="utf-8")
    for words in ("Next", "its part"):
        assert re.search(
            rf'href="index\.html#not-part-of-this-run"><span [^>]*>{words}</span>', html
        )
    page = (some.report / "01_lesson.md").read_text(encoding="utf-8")
    how = "README.md#not-part-of-this-run"
    assert f"[Next]({how}), [its part]({how}), [this one](01_lesson.md)." in page
    command = "make reports ONLY=02 DATA='my data' SET='01.epochs=2 02.epochs=3'"
    assert f"- **02. Lesson**: `{command}`" in (some.report / "README.md").read_text(
        encoding="utf-8"
    )
    runner.run(replace(some, only=[]))
    report.report(some)
    assert (
        "[Next](02_lesson.md), [its part](02_lesson.md#02-lesson)"
        in (some.report / "01_lesson.md").read_text()
    )
    assert "Not part of this run" not in (some.report / "README.md").read_text(encoding="utf-8")


KILLED_REPORT = """
import os, sys
from pathlib import Path
from viralbert.course import report, runner
moment = sys.argv[2]
if moment == "pages":
    write, n = report.write_whole, []
    def write_and_die(*a):
        write(*a)
        n.append(1)
        if len(n) == 3:
            os.kill(os.getpid(), 9)
    report.write_whole = write_and_die
else:
    report.build_site = lambda *a: os.kill(os.getpid(), 9)
report.report(runner.Run(root=Path(sys.argv[1])))
"""


def test_a_killed_report_leaves_the_old_one(tiny_course, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = ["data: str = 'sample'  # source", "print('<script>\\n```')"]
    (tmp_path / "README.md").write_text("\n".join(HEADLINE))
    run = tiny_course(cells, cells)
    runner.run(run)
    report.report(run)
    (run.report / "mine.txt").write_text("kept")
    whole = {path: path.read_bytes() for path in run.report.rglob("*") if path.is_file()}
    assert len(whole) > 20
    runner.run(replace(tiny_course(cells, [*cells, "print(2)"]), only=["02"]))
    for moment in ("pages", "site"):
        command = [sys.executable, "-c", KILLED_REPORT, str(tmp_path), moment]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        assert {
            path: path.read_bytes() for path in run.report.rglob("*") if path.is_file()
        } == whole
    report.report(Run(root=tmp_path))
    assert "print(2)" in (run.report / "02_lesson.md").read_text()
    assert (run.report / "mine.txt").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["README.md", "notebooks", "profiles", "reports", "runs"]
    assert (run.report / "01_lesson.md").read_text().endswith("```text\n<script>\n'''\n```\n"), (
        "it ends no block"
    )


def test_the_command_for_a_lesson_tells_what_differs_from_the_defaults():
    assert report.make_command(Run()) == "make reports"
    run = Run(
        "full",
        encoder="x/y",
        settings=["01.virality_file=a.csv"],
        device="cuda:1",
        precision="float32",
    )
    assert report.make_command(run, "04") == (
        "make reports ONLY=04 PROFILE=full ENCODER=x/y SET=01.virality_file=a.csv DEVICE=cuda:1 "
        "PRECISION=float32"
    )


# The committed report -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest() -> dict:
    return json.loads((REPORTS / "manifest.json").read_text(encoding="utf-8"))


def test_committed_report_belongs_to_these_notebooks(manifest):
    run = Run()
    assert list(manifest["notebooks"]) == [notebook.name for notebook in run.notebooks]
    for notebook in run.notebooks:
        now = run.fingerprint(notebook)
        for part in ("source", "parameters", "modules"):
            assert manifest["notebooks"][notebook.name][part] == now[part], (
                f"{notebook.name}: {part} changed since the committed report; run `make reports` "
                "and commit reports/"
            )
        data_now = {k: v for k, v in now["reads"].items() if k.startswith("data:")}
        assert data_now.items() <= manifest["notebooks"][notebook.name]["reads"].items()


def test_every_lesson_has_its_page_and_its_figures():
    for notebook in catalogue.notebooks():
        text = (REPORTS / f"{notebook.name}.md").read_text(encoding="utf-8")
        for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
            assert len(alt.split()) >= 5
            assert (REPORTS / target).stat().st_size > 5000
    pages = "\n".join(p.read_text(encoding="utf-8") for p in REPORTS.glob("*.md"))
    used = set(re.findall(r"figures/[\w.]+", pages))
    assert used == {f"figures/{path.name}" for path in (REPORTS / "figures").iterdir()}


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$", "", text, flags=re.S)


def test_committed_report_tells_nothing_of_the_machine():
    for path in [*REPORTS.glob("*.md"), *REPORTS.glob("*.json")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|work|tmp|Users)/|\d{4}-\d\d-\d\dT\d\d", text), path.name
        said = without_code(text)
        assert not re.search(r"\{[a-z][\w.-]*(:[^{} ]*)?\}|lesson\.say", said), path.name
        assert "Traceback" not in text


def test_readme_table_is_the_runs():
    metrics = json.loads((REPORTS / "metrics.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    between = readme.split(HEADLINE[0])[1].split(HEADLINE[1])[0].strip()
    assert between == report.headline_table(metrics["headline"], "reports/{}.md")
    assert len(metrics["headline"]) >= 2


def test_repository_stays_light():
    size = sum(
        path.stat().st_size
        for path in REPORTS.rglob("*")
        if path.is_file() and "site" not in path.parts
    )
    assert size < 8 * 2**20
