"""What a lesson is executed again for: its code, and the files behind its parameters."""

import shutil
from pathlib import Path

import pytest

from tests.product.course.lessons import PARAMETERS, declare
from viralbert.course import catalogue
from viralbert.course.runner import Run, run

pytestmark = pytest.mark.usefixtures("in_repository")


def copied_packages(tmp_path: Path, monkeypatch) -> Path:
    """A copy of the packages, in which the runner looks for what notebooks import."""
    home = tmp_path / "home"
    for package in catalogue.PACKAGES:
        shutil.copytree(
            catalogue.HOME / package,
            home / package,
            ignore=shutil.ignore_patterns("__pycache__", "pretrained"),
        )
    monkeypatch.setattr(catalogue, "HOME", home)
    return home


def touch(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# changed", encoding="utf-8")


def test_a_change_deep_in_the_packages_runs_exactly_the_lessons_that_use_it(
    tiny_course, tmp_path, monkeypatch
):
    home = copied_packages(tmp_path, monkeypatch)
    task = tiny_course(
        [
            PARAMETERS,
            "import viralbert_utils.training.batches",
        ],  # settings, models, encoders, their vocabulary
        [PARAMETERS, "from viralbert_utils.evaluation.metrics import macro_f1"],
        [PARAMETERS, "def later():\n    from viralbert.moments import units"],
    )
    names = ["01_lesson", "02_lesson", "03_lesson"]
    assert run(task).executed == names
    for path, expected in {
        "viralbert_utils/encoders/vocabulary.py": ["01_lesson"],
        "viralbert_utils/encoders/vocabulary.yaml": ["01_lesson"],  # the table of the module
        "viralbert_utils/evaluation/__init__.py": ["02_lesson"],
        "viralbert/moments/cue_text.py": ["03_lesson"],
        "viralbert_utils/base/errors.py": ["01_lesson", "03_lesson"],
        "viralbert_utils/__init__.py": names,
        "viralbert/course/report.py": [],
    }.items():
        touch(home / path)
        assert run(Run(root=task.root)).executed == expected, path


def test_fingerprint_follows_what_is_imported_and_read(tiny_course, tmp_path, monkeypatch):
    home = copied_packages(tmp_path, monkeypatch)
    task = tiny_course([PARAMETERS, "from viralbert_utils.data import splits"])
    first = task.fingerprint(task.notebooks[0])
    # splits uses the tables and texts, which use more; the report's code plays no part.
    assert set(first["modules"]) == {
        "viralbert_utils/__init__.py",
        *(f"viralbert_utils/data/{name}.py" for name in ("__init__", "splits", "tables")),
        *(f"viralbert_utils/base/{name}.py" for name in ("__init__", "errors", "files", "texts")),
    }
    (home / "viralbert/course/report.py").write_text("# changed")
    assert Run(root=task.root).fingerprint(task.notebooks[0]) == first
    touch(home / "viralbert_utils/base/texts.py")
    assert Run(root=task.root).fingerprint(task.notebooks[0]) != first

    (tmp_path / "mine" / "virality").mkdir(parents=True)
    table = tmp_path / "mine" / "virality" / "train.csv"
    table.write_text("text,label\nда,1\n")
    task = declare(task, 0, reads=["data:virality"], leaves=[])
    prints = []
    for content in ("text,label\nда,1\n", "text,label\nнет,0\n"):
        table.write_text(content)
        prints.append(
            Run(root=task.root, data=str(tmp_path / "mine")).fingerprint(task.notebooks[0])
        )
    assert prints[0]["parameters"]["data"] == "../mine"
    assert prints[0]["reads"] != prints[1]["reads"]


def test_files_behind_parameters_count(tiny_course, tmp_path):
    task = tiny_course([PARAMETERS + "\nencoder: str = 'embedded'\nown_file: str = ''", "1"])
    (tmp_path / "model").mkdir()
    weights, table = tmp_path / "model" / "weights", tmp_path / "own.csv"
    prints = []
    for content in ("one", "two"):
        weights.write_text(content)
        table.write_text(content)
        other = Run(root=task.root, encoder="model", settings=["01.own_file=../own.csv"])
        prints.append(other.fingerprint(other.notebooks[0])["reads"])
    assert set(prints[0]) == {"encoder:weights", "own_file:own.csv"}
    assert all(prints[0][name] != prints[1][name] for name in prints[0])


def test_paths_are_seen_from_where_the_command_runs(tiny_course, tmp_path, monkeypatch):
    task = tiny_course([PARAMETERS + "\nencoder: str = 'embedded'\nown_file: str = ''", "1"])
    notebook = task.notebooks[0]

    def given(*settings: str) -> dict:
        return Run(root=task.root, settings=[f"01.{setting}" for setting in settings]).parameters(
            notebook
        )

    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "model").mkdir(parents=True)
    (elsewhere / "own.csv").write_text("one")
    monkeypatch.chdir(elsewhere)
    assert given("own_file=own.csv")["own_file"] == "../elsewhere/own.csv"
    assert given(f"own_file={elsewhere}/own.csv")["own_file"] == "../elsewhere/own.csv"
    values = given("encoder=model", "data=model")
    assert (values["encoder"], values["data"]) == ("../elsewhere/model", "../elsewhere/model")
    # A path as the notebook sees it stays what it is; one that is nowhere, too: the lesson names
    # it.
    (tmp_path / "other.csv").write_text("two")
    assert given("own_file=../other.csv")["own_file"] == "../other.csv"
    assert given("own_file=none.csv")["own_file"] == "none.csv"


def test_the_run_folder_and_the_courses_files_are_named_from_the_root(tiny_course, tmp_path):
    task = tiny_course([PARAMETERS + "\nown_file: str = 'data/own.csv'", "1"])
    assert task.parameters(task.notebooks[0])["run_dir"] == "runs/sample"
    (tmp_path / "data").mkdir()
    prints = []
    for content in ("one", "two"):
        (tmp_path / "data" / "own.csv").write_text(content)
        prints.append(task.fingerprint(task.notebooks[0])["reads"])
    assert set(prints[0]) == {"own_file:own.csv"}
    assert prints[0] != prints[1]
