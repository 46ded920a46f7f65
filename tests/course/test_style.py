"""What keeps packages and tests thin and plain: their size, their imports, their docstrings."""

import ast
import re
from pathlib import Path

import pytest

from viralbert_utils.base.files import ROOT

UTILS = ROOT / "viralbert_utils"
SHARED = sorted(path for path in UTILS.rglob("*.py") if "lessons" not in path.parts)
PACKAGES = sorted(
    path for name in ("viralbert_utils", "viralbert") for path in (ROOT / name).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FILE, MOST_FILES_OF_A_ROOM = 4100, 300, 9
MOST_LINES_OF_A_TEST_FILE = 400  # blank ones and comments too


def docstrings(tree: ast.AST) -> list[ast.Constant]:
    """The docstrings of a module, its classes and functions."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.append(first.value)
    return found


def code_lines(path: Path) -> int:
    """Lines of a file without blank lines, comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    told = {
        number
        for docstring in docstrings(ast.parse(source))
        for number in range(docstring.lineno, (docstring.end_lineno or 0) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in told
        for number, line in lines
    )


def test_what_lessons_share_is_thin():
    assert sum(map(code_lines, SHARED)) <= MOST_LINES
    assert {path.name: n for path in SHARED if (n := code_lines(path)) > MOST_LINES_OF_A_FILE} == {}


def test_a_room_can_be_seen_at_a_glance():
    rooms = {path.parent for path in SHARED}
    assert len(rooms) > 5
    for room in rooms:
        files = [path for path in room.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES_OF_A_ROOM, room.name


def test_a_test_file_is_about_one_subject():
    assert len(TESTS) > 80
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in TESTS
    }
    assert {name: n for name, n in lengths.items() if n > MOST_LINES_OF_A_TEST_FILE} == {}


@pytest.mark.parametrize("path", sorted(UTILS.rglob("*.py")), ids=lambda path: path.stem)
def test_what_lessons_share_does_not_know_the_product(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not [name for name in names if name.partition(".")[0] == "viralbert"]


def test_docstrings_are_sentences_not_telegrams():
    """`seed: Of the folds.` leaves the reader to guess what the seed does to them."""
    telegrams = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in PACKAGES
        for docstring in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        for line in str(docstring.value).splitlines()
        if re.match(r"(\s+\w+: )?Of ", line)
    ]
    assert telegrams == []
