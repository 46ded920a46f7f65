"""Lessons that fail, hang, die or end too soon are named, and the last good copy stays."""

import nbformat
import pytest

from tests.product.course.lessons import PARAMETERS, executed
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import Run, run

pytestmark = pytest.mark.usefixtures("in_repository")


def test_a_raising_cell_is_named_and_the_copy_kept(tiny_course):
    task = tiny_course(
        [
            PARAMETERS,
            "print('before')",
            "# why\nraise ValueError('negative rate')",
            "print('after')",
        ]
    )
    with pytest.raises(
        CourseError, match=r"01_lesson, code cell 3 of 4 \('# why'\): ValueError: negative rate"
    ) as caught:
        run(task)
    assert "runs/sample/failed/01_lesson.ipynb" in str(caught.value)
    kept = nbformat.read(task.folder / "failed" / "01_lesson.ipynb", as_version=4)
    assert any("before" in str(cell.get("outputs")) for cell in kept.cells)
    assert not task.executed(task.notebooks[0]).exists()


def test_a_failing_run_keeps_the_last_good_copy(tiny_course):
    task = tiny_course([PARAMETERS, "print(1)"])
    run(task)
    worse = tiny_course([PARAMETERS, "raise ValueError"])
    with pytest.raises(CourseError):
        run(worse)
    assert executed(task).cells[-1].outputs[0].text == "1\n"


def test_nothing_is_written_between_cells(tiny_course):
    look = (
        "import json\nfrom pathlib import Path\n(copy,) = Path('..').glob('runs/**/*.ipynb')\n"
        "print(sum(len(cell.get('outputs', [])) for cell in json.loads(copy.read_text())['cells']))"
    )
    task = tiny_course([PARAMETERS, "1", look])
    run(task)
    assert executed(task).cells[-1].outputs[0].text == "0\n"


def kept(task: Run) -> list[object]:
    """What the cells of a failed copy have shown."""
    copy = nbformat.read(task.folder / "failed" / "01_lesson.ipynb", as_version=4)
    outputs = [output for cell in copy.cells for output in cell.get("outputs", [])]
    return [output["data"]["text/plain"] for output in outputs if "data" in output]


def test_a_cell_that_outlasts_its_limit_is_named(tiny_course):
    task = tiny_course([PARAMETERS, "1", "import time\ntime.sleep(60)", "2"], cell_timeout_s=5)
    with pytest.raises(
        CourseError, match=r"code cell 3 of 4 \('import time'\): took longer than the limit of 5 s"
    ):
        run(task)
    assert kept(task) == ["1"]


def test_a_dying_kernel_is_named(tiny_course):
    task = tiny_course(
        [PARAMETERS, "1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "2"]
    )
    with pytest.raises(CourseError, match=r"code cell 3 of 4 .*the kernel died"):
        run(task)
    assert kept(task) == ["1"]


@pytest.mark.parametrize(
    "end", ["import sys\nsys.exit(0)", "quit()", "if True:\n    exit(0)", "raise SystemExit"]
)
def test_a_notebook_that_ends_before_its_last_cell_is_not_executed(tiny_course, end):
    task = tiny_course([PARAMETERS, "print(1)", f"# enough\n{end}", "answer = 42"])
    for _ in range(2):
        with pytest.raises(
            CourseError, match=r"01_lesson, code cell 3 of 4 \('# enough'\): it ends the notebook"
        ):
            run(Run(root=task.root))
    assert not task.executed(task.notebooks[0]).exists()


def test_a_kernel_that_cannot_start_is_one_line(tiny_course, monkeypatch):
    task = tiny_course([PARAMETERS, "1"])
    monkeypatch.setenv("JUPYTER_PATH", str(task.root / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(task.root / "jupyter"))
    folder = task.root / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(
        '{"argv": ["/bin/false"], "display_name": "no", "language": "python"}'
    )
    with pytest.raises(
        CourseError, match=r"01_lesson: its kernel could not be started \(.*\); try"
    ) as caught:
        run(task)
    assert "\n" not in str(caught.value)
