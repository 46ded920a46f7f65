"""What every notebook must have: plain parameters, the common kernel, a number of its own."""

import shutil

import nbformat
import pytest

from tests.product.course.lessons import PARAMETERS, declare
from viralbert.course import catalogue
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import Run, run

pytestmark = pytest.mark.usefixtures("in_repository")


def change(task: Run, function) -> Run:
    path = task.notebooks[0].path
    node = nbformat.read(path, as_version=4)
    function(node)
    nbformat.write(node, path)
    return Run(root=task.root)


def test_parameters_cell_is_needed_and_plain(tiny_course):
    task = change(tiny_course([PARAMETERS, "1"]), lambda node: node.cells[1].metadata.pop("tags"))
    with pytest.raises(CourseError, match="expected exactly one cell tagged 'parameters', found 0"):
        run(task)
    with pytest.raises(
        CourseError, match=r"expected lines like .*found 'half: int = epochs // 2'.*next cell"
    ):
        run(tiny_course(["epochs: int = 3\nhalf: int = epochs // 2", "1"]))
    with pytest.raises(CourseError, match="found 'epochs = 3'"):
        run(tiny_course(["epochs = 3", "1"]))


def test_the_kernel_must_be_everybodys(tiny_course):
    task = change(
        tiny_course([PARAMETERS, "1"]), lambda node: node.metadata.kernelspec.update(name="my-env")
    )
    with pytest.raises(
        CourseError, match="asks for the kernel 'my-env'; the course runs on 'python3'"
    ):
        run(task)


def test_a_syntax_error_and_a_bad_declaration_are_named(tiny_course):
    task = tiny_course([PARAMETERS, "for i in range(2):\n    !ls", "x = = 1"])
    with pytest.raises(CourseError, match=r"01_lesson, code cell 3 of 3, line 1: invalid syntax"):
        run(task)
    task = declare(tiny_course([PARAMETERS, "1"]), 0, reads=["data:emotion"], leaves=[])
    with pytest.raises(
        CourseError,
        match=r"reads 'data:emotion'; expected run:<path> or, to read, data:<one of emotions",
    ):
        run(task)


def test_two_notebooks_with_one_number(tiny_course, tmp_path):
    task = tiny_course([PARAMETERS, "1"])
    shutil.copy(task.notebooks[0].path, tmp_path / "notebooks" / "01_other.ipynb")
    with pytest.raises(CourseError, match="two notebooks carry the number 01"):
        run(Run(root=task.root))


def test_every_declared_input_is_left_by_an_earlier_notebook():
    left: set[str] = set()
    for notebook in catalogue.notebooks():
        inner = {item for item in notebook.reads if item.startswith("run:")}
        assert inner <= left, (
            f"{notebook.name} reads {inner - left}, which no earlier notebook leaves"
        )
        left |= set(notebook.leaves)
