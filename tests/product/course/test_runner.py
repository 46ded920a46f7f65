"""The runner: nothing is executed twice without a reason, and what a lesson declares is kept."""

import os
import shlex
import subprocess
import sys

import nbformat
import pytest

from tests.product.course.lessons import PARAMETERS, declare, executed
from viralbert import cli
from viralbert.course import runner
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import Run, run

pytestmark = pytest.mark.usefixtures("in_repository")


def test_runs_with_parameters_and_leaves_the_source_alone(tiny_course):
    task = tiny_course([PARAMETERS, "print(epochs, run_dir)"], common={"epochs": 5})
    source = task.notebooks[0].path.read_bytes()
    assert run(task).executed == ["01_lesson"]
    assert executed(task).cells[-1].outputs[0].text == "5 runs/sample\n"
    assert task.notebooks[0].path.read_bytes() == source
    assert executed(task).metadata["viralbert_run"]["environment"]["device"]


def test_nothing_changed_means_nothing_executed(tiny_course):
    task = tiny_course([PARAMETERS, "1 + 1"])
    assert run(task).executed == ["01_lesson"]
    again = Run(root=task.root)
    assert run(again).skipped == ["01_lesson"]
    assert run(Run(root=task.root, settings=["01.epochs=9"])).executed == ["01_lesson"]
    node = nbformat.read(task.notebooks[0].path, as_version=4)
    node.cells[-1].source = "1 + 2"
    nbformat.write(node, task.notebooks[0].path)
    assert run(Run(root=task.root)).executed == ["01_lesson"]


def test_a_killed_run_goes_on_from_the_last_finished_notebook(tiny_course):
    broken = tiny_course([PARAMETERS, "1"], [PARAMETERS, "raise SystemError('power cut')"])
    with pytest.raises(CourseError, match="02_lesson"):
        run(broken)
    mended = tiny_course([PARAMETERS, "1"], [PARAMETERS, "2"])
    outcome = run(mended)
    assert (outcome.skipped, outcome.executed) == (["01_lesson"], ["02_lesson"])


def test_downstream_follows_upstream(tiny_course):
    table = "from viralbert_utils import lesson\ntable = lesson.start(0, run_dir) / 'table.txt'\n"
    write, read = table + "table.write_text(str(epochs))", table + "print(table.read_text())"
    task = tiny_course([PARAMETERS, write], [PARAMETERS, read])
    task = declare(task, 0, reads=[], leaves=["run:table.txt"])
    task = declare(task, 1, reads=["run:table.txt"], leaves=[])
    assert [notebook.name for notebook in Run(root=task.root, only=["02"]).selected()] == [
        "01_lesson",
        "02_lesson",
    ]
    run(task)
    assert executed(task, 1).cells[-1].outputs[0].text == "3\n"
    # What a later, failed run left behind a finished copy is not what that copy stands for.
    (task.folder / "table.txt").write_text("7")
    again = run(Run(root=task.root))
    assert (again.executed, again.skipped) == (["01_lesson"], ["02_lesson"])
    assert (task.folder / "table.txt").read_text() == "3"
    (task.folder / "table.txt").unlink()
    assert run(Run(root=task.root)).executed == ["01_lesson"]
    assert run(Run(root=task.root, settings=[])).executed == []


def test_a_notebook_must_leave_what_it_declares(tiny_course):
    task = declare(tiny_course([PARAMETERS, "1"]), 0, reads=[], leaves=["run:model"])
    with pytest.raises(
        CourseError, match=r"01_lesson declares that it leaves 'run:model'.*but did not"
    ):
        run(task)


def test_the_hub_is_out_of_bounds_in_an_offline_profile(tiny_course):
    task = tiny_course([PARAMETERS, "import os\nprint(os.environ.get('HF_HUB_OFFLINE'))"])
    run(task)
    assert executed(task).cells[-1].outputs[0].text == "1\n"
    task = tiny_course(
        [PARAMETERS, "import os\nprint(os.environ.get('HF_HUB_OFFLINE')) "], offline=False
    )
    run(task)
    assert executed(task).cells[-1].outputs[0].text == "None\n"


@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_papermill_by_hand_leaves_its_files_in_the_repository(
    tiny_course, tmp_path, monkeypatch, folder
):
    write = (
        "from viralbert_utils import lesson\n"
        "(lesson.start(0, run_dir) / 'seen.txt').write_text(lesson.find(own_file).read_text() + "
        "str(epochs))"
    )
    cells = ["run_dir: str = 'runs/sample'\nown_file: str = 'data/own.txt'\nepochs: int = 3", write]
    tiny_course(cells)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.txt").write_text("own ")
    monkeypatch.chdir(tmp_path / folder)
    source = os.path.relpath(tmp_path / "notebooks" / "01_lesson.ipynb")
    command = [
        sys.executable,
        "-m",
        "papermill",
        source,
        "out.ipynb",
        "-p",
        "epochs",
        "5",
        "--no-progress-bar",
    ]
    before = set(tmp_path.parent.iterdir())
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "runs" / "sample" / "seen.txt").read_text() == "own 5"
    assert set(tmp_path.parent.iterdir()) == before
    assert {path.name for path in tmp_path.iterdir()} - {"out.ipynb"} == {
        "data",
        "notebooks",
        "profiles",
        "runs",
    }
    text = (tmp_path / folder / "out.ipynb").read_text()
    assert str(tmp_path) not in text


def test_command_reports_errors_in_one_line(capsys, monkeypatch, tiny_course):
    task = tiny_course([PARAMETERS, "1"])
    monkeypatch.setattr(runner, "Run", lambda *args, **where: Run(*args, root=task.root, **where))
    assert cli.main(["run", "--set", "01.epoch=1"]) == 1
    assert capsys.readouterr().err.startswith("viralbert: 01_lesson has no parameter 'epoch'")
    assert cli.main(["run"]) == 0
    assert cli.main(["run"]) == 0
    assert "up to date: 01_lesson" in capsys.readouterr().out


DATA_AND_ENCODER = "data: str = 'sample'\nencoder: str = 'embedded'"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data nofolder", "data folder 'nofolder' does not exist; give 'sample', 'hub' or an"),
        ("--data file.csv", "data 'file.csv' is a file; expected 'sample', 'hub' or a folder"),
        ("--set 01.data=nofolder", "data folder 'nofolder' does not exist; give 'sample', 'hub'"),
        ("--encoder nosuch", "encoder 'nosuch' could not be loaded: no such folder"),
    ],
)
@pytest.mark.parametrize("command", ["run", "report"])
def test_what_is_not_there_is_refused_before_a_kernel_starts(
    capsys, monkeypatch, tmp_path, tiny_course, command, line, message
):
    task = tiny_course([DATA_AND_ENCODER, "1"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "Run", lambda *args, **where: Run(*args, root=task.root, **where))
    (tmp_path / "file.csv").touch()
    assert cli.main([command, *line.split()]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    if "--data" in line:  # as the other commands say it
        assert cli.main(["train", *line.split(), "--output", "out"]) == 1
        assert message in capsys.readouterr().err


def test_a_report_of_nothing_repeats_the_options(capsys, monkeypatch, tmp_path, tiny_course):
    task = tiny_course([DATA_AND_ENCODER, "1"])
    monkeypatch.setattr(runner, "Run", lambda *args, **where: Run(*args, root=task.root, **where))
    (tmp_path / "my data").mkdir()
    options = ["--data", str(tmp_path / "my data"), "--only", "01", "--set", "01.encoder=embedded"]
    assert cli.main(["report", *options, "--device", "cpu"]) == 1
    line = shlex.join(["viralbert", "run", "--profile", "sample", *options, "--device", "cpu"])
    assert f"run `{line}` first" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
