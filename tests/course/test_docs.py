"""README, manuals, API reference: links lead somewhere, commands exist, pages are in the site."""

import ast
import importlib
import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from viralbert import cli
from viralbert.course import catalogue, manuals, reference, report, runner
from viralbert.course.catalogue import CourseError, Notebook
from viralbert.course.runner import ROOT

MANUALS = manuals.manuals(ROOT)
PAPERS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "README.md",
    *MANUALS,
]
papers = pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.relative_to(ROOT).as_posix())


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(text: str) -> set[str]:
    """Of the headings of a Markdown page, as hubs and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-") for words in headings}


def code_blocks(text: str) -> list[str]:
    """Lines of the indented blocks, continued lines in one."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


def test_readme_is_short_and_has_a_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 300 < len(text.split()) <= 900
    ((alt, picture),) = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert len(alt.split()) >= 8
    assert (ROOT / picture).stat().st_size > 5000


def test_readme_maps_every_lesson_to_notebook_page_and_code():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for notebook in catalogue.notebooks():
        row = next(
            line for line in text.splitlines() if f"](notebooks/{notebook.path.name})" in line
        )
        assert f"](reports/{notebook.name}.md)" in row
        code = links(row.rpartition("](reports/")[2])
        assert code, row
        used = catalogue.imported_modules(notebook)
        for target in code:
            file = ROOT / target
            assert any(file in (path, *path.parents) for path in used), f"{row}: {target}"


@papers
def test_every_link_leads_somewhere(path):
    for target in links(path.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        name, _, part = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{path.name}: {target}"
        assert not part or part in anchors(file.read_text(encoding="utf-8")), (
            f"{path.name}: {target}"
        )


@papers
def test_commands_exist_with_their_options(path):
    text = path.read_text(encoding="utf-8")
    commands = [words for line in code_blocks(text) if (words := command(line))]
    for words in commands:
        if words[0] == "make":
            check_make(words[1:])
        else:
            cli._parser().parse_args(words[1:])  # says what it does not know, and ends
            whole = help_of(words[1])
            assert all(word in whole for word in words if word.startswith("--")), "abbreviated"
    assert commands or path not in MANUALS or path.name == "glossary.md"


def help_of(name: str) -> list[str]:
    """The options of a command, as its help names them."""
    written = io.StringIO()
    with pytest.raises(SystemExit), redirect_stdout(written):
        cli._parser().parse_args([name, "--help"])
    return re.findall(r"--[\w-]+", written.getvalue())


def command(line: str) -> list[str]:
    """The words of a call of make or of viralbert; none if the line is something else."""
    match = re.fullmatch(r"(?:.* \| )?(?:[A-Z_]+=\S+ )*((?:viralbert|make|torchrun) .*)", line)
    words = shlex.split(match[1], comments=True) if match else []
    if words[:1] == ["torchrun"]:
        return ["viralbert", *words[words.index("viralbert.cli") + 1 :]]
    return words


@papers
def test_make_targets_in_the_text_exist(path):
    for command in re.findall(r"`make ([^`]+)`", path.read_text(encoding="utf-8")):
        check_make(shlex.split(command))


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_setting, _ = word.partition("=")
        pattern = rf"^{name}\s*\?=" if is_setting else rf"^{name}:"
        assert re.search(pattern, makefile, re.M), word


@papers
def test_python_in_the_text_imports_what_is_there(path):
    for block in re.findall(
        r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M
    ):
        for statement in ast.walk(ast.parse(block)):
            if isinstance(statement, ast.ImportFrom):
                module = importlib.import_module(statement.module)
                for alias in statement.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{statement.module}.{alias.name}")


def test_contributing_has_a_caption_for_every_room():
    tree = re.findall(r"^    .*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    package = Path()
    told = set()
    for line in tree:
        if match := re.match(r"    ( *)([\w./]+/|[\w.]+\.py)[, ]", line):
            path = ROOT / (package if match[1] else "") / match[2]
            package = package if match[1] else Path(match[2])
            told.add(path)
            assert path.exists() or match[2] == "runs/", line
    rooms = {ROOT.joinpath(*room.split(".")) for room in reference.rooms()}
    assert rooms <= told


# Manuals as pages ---------------------------------------------------------------------------------


def test_a_manual_must_be_listed(tmp_path):
    assert manuals.manuals(tmp_path) == []
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("[B](b.md) and [A](a.md), [other](../a.md)")
    (tmp_path / "docs" / "a.md").write_text("# About A\n")
    with pytest.raises(CourseError, match=r"it differs in: b\.md"):
        manuals.manuals(tmp_path)
    (tmp_path / "docs" / "b.md").write_text("# B")
    assert [path.name for path in manuals.manuals(tmp_path)] == ["b.md", "a.md"]
    assert manuals.title(tmp_path / "docs" / "a.md") == "About A"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[x](serve.md#limits)", "[x](serve.md#limits)"),
        ("[x](https://a.example/b)", "[x](https://a.example/b)"),
        ("[x](../reports/01_a.md#part)", "[x](../01_a.ipynb#part)"),
        ("[x](../reports/02_b.md#part)", "[x](../index.md#how)"),
        ("[x](../reports/README.md)", "[x](../index.md)"),
        ("[`t`](../viralbert/train.py)", "{py:mod}`t <viralbert.train>`"),
        ("[the sheet](../data/README.md)", "the sheet (`data/README.md`)"),
        ("[`data/README.md`](../data/README.md)", "`data/README.md`"),
    ],
)
def test_links_of_a_manual_lead_to_pages_of_the_site(tmp_path, monkeypatch, link, expected):
    (tmp_path / "docs").mkdir()
    for name in ("data/README.md", "viralbert/train.py", "docs/serve.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "docs" / "README.md").write_text("[s](serve.md) [a](a.md)")
    (tmp_path / "docs" / "a.md").write_text(f"See {link}.")
    page = manuals.site_page(tmp_path / "docs" / "a.md", tmp_path, {"01_a"}, "index.md#how")
    assert page == f"See {expected}."
    with pytest.raises(CourseError, match=r"a\.md: the link to \.\./gone\.md leads nowhere"):
        (tmp_path / "docs" / "a.md").write_text("[x](../gone.md)")
        manuals.site_page(tmp_path / "docs" / "a.md", tmp_path, {}, "")


# The API reference --------------------------------------------------------------------------------


def test_rooms_hold_every_module_once():
    rooms = reference.rooms()
    assert {"viralbert_utils.evaluation", "viralbert.serving"} <= rooms.keys()
    modules = [module for own in rooms.values() for module in own]
    assert len(modules) == len(set(modules)) > 50
    assert all(reference.path_of(module).is_file() for module in modules)


POCKET = {
    "pocket/__init__.py": '"""All of it."""',
    "pocket/base/__init__.py": '"""Where things start. Lessons 01 and 02 use it."""',
    "pocket/base/maths.py": '''
"""Sums."""
import not_installed_here
LIMIT = 3

def double(n: int) -> int:
    """Twice `n` (lesson 01).

    Args:
        n: A number of *things*.

    Returns:
        As many again; `LIMIT` plays no part.
    """
    return 2 * n

def unused() -> None:
    """Nothing."""
''',
    "pocket/cases.py": '''
"""Cases."""
from dataclasses import dataclass
from pydantic import BaseModel
from pocket.base.maths import double

@dataclass
class Case:
    """A case; lesson 02 derives it.

    Attributes:
        size: In litres.
    """

    size: float

class Sent(BaseModel, extra="forbid"):
    """JSON."""
''',
}
USES = """
from pocket import cases
from pocket.base import maths as m
from pocket.cases import Case
cases.double(m.LIMIT); Case(1.0)
"""


@pytest.fixture
def pocket(tmp_path, monkeypatch):
    """A package of two rooms in place of the course's."""
    for name, text in POCKET.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(catalogue, "HOME", tmp_path)
    monkeypatch.setattr(catalogue, "PACKAGES", ("pocket",))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "pocket"]:
        del sys.modules[name]


def notebook_of(folder: Path, source: str) -> Notebook:
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(node, folder / "01_a.ipynb")
    return Notebook(folder / "01_a.ipynb")


def test_code_of_a_lesson_is_found_where_it_is_defined(pocket):
    assert reference.code_of(notebook_of(pocket, USES)) == {
        "pocket.base.maths": ["double"],  # through another module; a constant has no entry
        "pocket.cases": ["Case"],
    }
    assert reference.code_of(notebook_of(pocket, "%matplotlib inline\nimport math")) == {}


def test_docstrings_lead_to_lessons():
    docstrings = reference.Docstrings(
        ["01_a", "03_c"], {"01_a": {"m": ["f"]}, "03_c": {"m": ["f"]}}
    )
    lines = ["Lessons 01,", "02 and 03 use `x`; lesson", "03 derives ``y``. Not 03."]
    docstrings.plain(None, "function", "m.f", None, None, lines)
    docstrings.linked(None, "function", "m.f", None, None, lines)
    assert "\n".join(lines) == (
        ":doc:`Lessons 01 </01_a>`,\n"
        "`02 <../index.html#not-part-of-this-run>`__ and :doc:`03 </03_c>` use ``x``; "
        ":doc:`lesson 03 </03_c>` derives ``y``. Not 03.\n\n"
        "*Used in lessons* :doc:`01 </01_a>`, :doc:`03 </03_c>`.\n"
    )


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("(root: Path = PosixPath('/a/b c'), n: int = 1)", "(root: Path = ..., n: int = 1)"),
        ("(name: str = 'Path')", "(name: str = 'Path')"),
        (None, None),
    ],
)
def test_signatures_hold_no_path_of_the_machine(signature, expected):
    docstrings = reference.Docstrings([], {})
    found = docstrings.signature(None, "class", "m.C", None, None, signature, "-> int")
    assert found == (expected, "-> int")


def test_a_site_with_manuals_and_reference_of_some_lessons(pocket, tiny_course, monkeypatch):
    (pocket / "docs").mkdir()
    (pocket / "docs" / "README.md").write_text("[How](how.md)")
    (pocket / "docs" / "how.md").write_text(
        "# How to\n\nAs in [one](../reports/01_lesson.md), [two](../reports/02_lesson.md) and "
        "[cases](../pocket/cases.py); [sheet](README.md)."
    )
    cells = ["data: str = 'sample'", "if False:\n    " + USES.strip().replace("\n", "\n    ")]
    run = tiny_course(cells, cells)
    some = replace(run, only=["01"])
    runner.run(some)
    site = report.report(some).parent
    lesson = (site / "01_lesson.html").read_text(encoding="utf-8")
    section = lesson.partition('id="code-of-this-lesson"')[2]
    assert 'href="api/pocket.base.html#pocket.base.maths.double"' in section
    assert 'href="api/pocket.html#module-pocket.cases"' in section
    assert 'href="docs/how.html"' in section
    room = (site / "api" / "pocket.base.html").read_text(encoding="utf-8")
    assert room.count('href="../01_lesson.html"><span class="doc">lesson 01</span>') == 1
    assert '<a class="reference external" href="../index.html#not-part-of-this-run">02</a>' in room
    assert (
        "Used in lesson"
        in room.partition('id="pocket.base.maths.double"')[2].partition("unused")[0]
    )
    assert "<em>things</em>" in room
    top = (site / "api" / "pocket.html").read_text(encoding="utf-8")
    assert "In litres" in top
    assert "pocket.cases.Sent" in top
    assert "model_config" not in top, "its docstring is in Markdown, and of no use to a reader"
    how = (site / "docs" / "how.html").read_text(encoding="utf-8")
    assert 'href="../index.html#not-part-of-this-run"' in how
    assert 'href="../api/pocket.html#module-pocket.cases"' in how
    assert "sheet (<code" in how
    first = (site / "index.html").read_text(encoding="utf-8")
    for page in ("docs/how", "api/pocket", "api/pocket.base"):
        assert f'href="{page}.html"' in first
    assert "The manuals tell more: " in first
    assert "[How to](../../../docs/how.md)" in (some.report / "README.md").read_text()
    markdown = (some.report / "01_lesson.md").read_text(encoding="utf-8")
    assert "- [pocket.base.maths](../../../pocket/base/maths.py): `double`" in markdown
    assert markdown.rstrip().endswith("Manuals: [How to](../../../docs/how.md).")
    made = (site / "index.html").stat().st_mtime_ns
    report.report(some)
    assert (site / "index.html").stat().st_mtime_ns == made
    (pocket / "docs" / "how.md").write_text("# How else\n\n[Nowhere](#gone).")
    with pytest.raises(CourseError, match=r"(?s)could not be built cleanly.*gone"):
        report.report(some)


def test_a_docstring_that_cannot_be_read_fails_the_build(pocket, tiny_course):
    (pocket / "pocket" / "cases.py").write_text('"""Cases of *two kinds."""\n')
    run = tiny_course(["data: str = 'sample'"])
    runner.run(run)
    with pytest.raises(CourseError, match=r"(?s)could not be built cleanly.*pocket\.cases"):
        report.report(run)
