"""Lints of the source notebooks: what a reader may expect of every lesson."""

import ast
import re
import statistics

import nbformat
import pytest

from viralbert.course import catalogue, runner
from viralbert.course.catalogue import Notebook
from viralbert_utils import lesson
from viralbert_utils.base.files import ROOT

TEMPLATE = Notebook(ROOT / "notebooks" / "template.ipynb")
LESSONS = catalogue.notebooks()
ALL = [*LESSONS, TEMPLATE]


def code(notebook: Notebook) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.node.cells if cell.cell_type == "code"]


def said(cell: nbformat.NotebookNode) -> tuple[str, list[str]] | None:
    """The text of a cell of `lesson.say` and the names it gives values for; None of other cells."""
    if not (cell.cell_type == "code" and cell.source.startswith("lesson.say(")):
        return None
    call = ast.parse(cell.source).body[0].value
    given = [word.arg for word in call.keywords if word.arg]
    given += [  # dotted names: `**{"pcgrad.f1": f1}`
        key.value
        for word in call.keywords
        if word.arg is None and isinstance(word.value, ast.Dict)
        for key in word.value.keys
        if isinstance(key, ast.Constant)
    ]
    return call.args[0].value, given


def paragraphs(notebook: Notebook) -> list[str]:
    """What a reader reads: Markdown, and sentences that the run fills in."""
    cells = [
        cell
        for cell in notebook.node.cells
        if cell.cell_type == "markdown" or said(cell) is not None
    ]
    return [cell.source if cell.cell_type == "markdown" else said(cell)[0] for cell in cells]


def prose(notebook: Notebook) -> str:
    return "\n\n".join(paragraphs(notebook))


def without_fields(text: str) -> str:
    """Prose without what a run fills in, code spans and formulas."""
    return lesson._FIELD.sub("", text)


def tagged(notebook: Notebook, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in code(notebook) if tag in cell.metadata.get("tags", [])]


def parametrize(notebooks: list[Notebook]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("notebook", notebooks, ids=lambda notebook: notebook.name)


@parametrize(ALL)
def test_no_outputs_counts_or_personal_metadata(notebook):
    nbformat.validate(notebook.node)
    assert notebook.node.metadata.kernelspec.name == "python3"
    assert set(notebook.node.metadata) <= {"kernelspec", "language_info", "viralbert"}
    for cell in notebook.node.cells:
        assert set(cell.metadata) <= {"tags", "jupyter"}
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@parametrize(ALL)
def test_order_of_a_lesson(notebook):
    text = prose(notebook)
    first = notebook.node.cells[0].source
    assert re.match(rf"# ({notebook.number}|NN)\. \w", first)
    assert "?" in first, "the first cell asks the question of the lesson"
    headings = [
        "## What you will learn",
        "## Before you start",
        "## Summary",
        "## Limits of these numbers",
        "References:",
    ]
    places = [text.find(heading) for heading in headings]
    assert min(places) >= 0
    assert places == sorted(places)
    tags = [
        tag
        for cell in code(notebook)
        for tag in cell.metadata.get("tags", [])
        if tag in ("parameters", "results")
    ]
    assert tags == ["parameters", "results"]
    assert code(notebook)[0].metadata.tags == ["parameters"]


@parametrize(ALL)
def test_parameters_are_typed_commented_and_shared_ones_are_alike(notebook):
    source = code(notebook)[0].source
    assert all(re.search(r"^\w+: [\w\[\], |]+ = .+  # .+", line) for line in source.splitlines())
    assert {"data", "run_dir", "seed"} <= set(notebook.parameters)
    assert notebook.parameters["data"] == ("str", "sample")
    assert notebook.parameters["run_dir"] == ("str", "runs/sample")
    # The working directory may be the root or `notebooks/`: what comes with the course is named
    # from the root.
    files = [
        value
        for name, (_, value) in notebook.parameters.items()
        if name.endswith("_file") and value
    ]
    assert all((ROOT / file).is_file() for file in files)


def n_lines_to_read(source: str) -> int:
    """Lines of a cell without blank lines, comments and imports: these grow with the rooms."""
    imports = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for number in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in imports
        for number, line in lines
    )


@parametrize(LESSONS)
def test_size_of_a_lesson(notebook):
    """How long a lesson is follows from its subject; its cells are short all the same."""
    to_read = [
        cell.source
        for cell in code(notebook)
        if not cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    lines = [n_lines_to_read(source) for source in to_read]
    assert statistics.median(lines) <= 8
    assert sorted(lines)[int(0.9 * len(lines))] <= 16
    functions = [
        n
        for source in to_read
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    # A service is made of functions; elsewhere there are a few.
    assert len(functions) <= 7
    assert all(n_lines_to_read(ast.unparse(function)) <= 15 for function in functions)
    assert sum("lesson.show(" in cell.source for cell in code(notebook)) >= 3


@parametrize(ALL)
def test_a_sentence_with_numbers_is_a_cell_of_its_own_and_folded(notebook):
    for cell in code(notebook):
        if "lesson.say(" not in cell.source:
            continue
        assert cell.source.startswith("lesson.say("), "the report makes prose of the whole cell"
        (statement,) = ast.parse(cell.source).body
        assert isinstance(statement.value, ast.Call)
        (text,) = statement.value.args
        assert isinstance(text, ast.Constant), "a text that the report and these tests can read"
        assert cell.metadata.jupyter.source_hidden
        assert without_fields(text.value) != text.value, "without a value it is a cell of Markdown"


@parametrize(ALL)
def test_folded_code_has_a_caption(notebook):
    for cell in tagged(notebook, "hide-input"):
        assert re.match(r"# \w.{5,}", cell.source), f"no caption on {cell.source[:60]!r}"
        assert cell.metadata.get("jupyter", {}).get("source_hidden"), "JupyterLab folds it by this"
        assert not cell.source.startswith("lesson.say(")


@parametrize(ALL)
def test_exercises_have_answer_solution_and_check(notebook):
    exercises, solutions = tagged(notebook, "exercise"), tagged(notebook, "solution")
    checks = [cell for cell in code(notebook) if "lesson.check(" in cell.source]
    assert 1 <= len(exercises) <= 3
    assert len(exercises) == len(solutions) == len(checks)
    for cell in exercises:
        assert cell.source.startswith("answer = None  # ")
    for cell in solutions:
        assert "hide-input" in cell.metadata.tags
        assert cell.metadata.jupyter.source_hidden
    assert prose(notebook).count("<summary>") == prose(notebook).count("</details>")


@parametrize(ALL)
def test_figures_one_a_cell_and_never_without_alt(notebook):
    for cell in code(notebook):
        assert cell.source.count("lesson.show(") <= 1
        assert "plt.show" not in cell.source
    assert not re.search(r"!\[\]\(", prose(notebook))


@parametrize(ALL)
def test_no_paths_hosts_or_branches_on_the_profile(notebook):
    source = "\n".join(cell.source for cell in code(notebook))
    assert not re.search(r"/(home|root|work|tmp|Users)/", source + prose(notebook))
    assert not re.search(r"\b(SMOKE|FAST|TEST|CI)\b", source)
    assert not re.search(r"read_csv\(|\bopen\(|requests\.|urlopen", source), (
        "files are read by the module, which checks them"
    )


@parametrize(ALL)
def test_the_predictor_is_imported_from_its_module(notebook):
    """`viralbert` looks it up when asked, where the runner can't see what a lesson depends on."""
    for cell in code(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module == "viralbert":
                assert not {"ViralBERT", "Predictor"} & {alias.name for alias in node.names}


@parametrize(ALL)
def test_prose_has_no_roles_of_sphinx(notebook):
    """`lesson.say` fills in numbers, and refuses a name that was not recorded."""
    assert "{glue" not in prose(notebook)


@parametrize(LESSONS)
def test_typed_results_are_not_in_the_prose(notebook):
    """Figures of a run belong into recorded values; those of the literature stand beside their
    source."""
    for paragraph in re.split(r"\n\s*\n", without_fields(prose(notebook))):
        typed = re.findall(r"(?<![\w.])0\.\d{2,}|\d+(?:\.\d+)? ?%", paragraph)
        typed = [figure for figure in typed if figure not in ("95 %", "50 %")]
        if typed:
            assert re.search(r"GoEmotions|paper|published", paragraph), (
                f"{typed} in {paragraph[:80]!r}"
            )


def test_the_template_runs(tmp_path):
    target = tmp_path / "out" / "template.ipynb"
    runner.execute(TEMPLATE, {"run_dir": str(tmp_path)}, target, 60)
    assert target.is_file()


def test_each_solution_records_its_value(smoke):
    for notebook in LESSONS:
        recorded = [name for name in smoke[notebook.name].records if name.startswith("exercise.")]
        assert len(recorded) == len(tagged(notebook, "solution"))
