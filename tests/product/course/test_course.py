"""The runner: strict about everything that papermill lets pass, and nothing is executed twice
without a reason."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest

from tests.timing import HANG_S, until
from viralbert import cli
from viralbert.course import catalogue, runner
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import RUNNING, Run, run
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT

PARAMETERS = (
    'data: str = "sample"  # source\nrun_dir: str = "."  # folder\nepochs: int = 3  # '
    "passes\nrate: float = 0.5"
)


@pytest.fixture(autouse=True)
def in_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def executed(task: Run, number: int = 0) -> nbformat.NotebookNode:
    return nbformat.read(task.executed(task.notebooks[number]), as_version=4)


def declare(task: Run, number: int, **metadata: list[str]) -> Run:
    path = task.notebooks[number].path
    node = nbformat.read(path, as_version=4)
    node.metadata["viralbert"] = metadata
    nbformat.write(node, path)
    return Run(root=task.root)


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


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (
            {"notebooks": {"01_lesson": {"epoch": 1}}},
            r"no parameter 'epoch' \(did you mean 'epochs'\?\)",
        ),
        (
            {"notebooks": {"01_lesson": {"epochs": "many"}}},
            r"parameter epochs is int, got 'many' \(str\)",
        ),
        ({"notebooks": {"01_lesson": {"epochs": 1.5}}}, "parameter epochs is int, got 1.5"),
        ({"notebooks": {"01_lesson": {"epochs": True}}}, "parameter epochs is int, got True"),
        ({"notebooks": {"09_lesson": {}}}, "no notebook named 09_lesson"),
        ({"titel": "x"}, "expected the keys"),
    ],
)
def test_profiles_are_checked_before_anything_runs(tiny_course, profile, message):
    task = tiny_course([PARAMETERS, "1"], **profile)
    with pytest.raises(CourseError, match=message):
        run(task)
    assert not task.folder.exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("01.epoch=2", "did you mean 'epochs'"),
        ("epochs=2", r"expected a setting like 03\.epochs=2"),
        ("07.epochs=2", "there is no notebook 07"),
    ],
)
def test_settings_are_checked(tiny_course, setting, message):
    task = tiny_course([PARAMETERS, "1"])
    with pytest.raises(CourseError, match=message):
        run(Run(root=task.root, settings=[setting]))


def test_an_integer_is_a_float_and_settings_have_a_run_of_their_own(tiny_course):
    task = tiny_course([PARAMETERS, "print(rate)"])
    other = Run(root=task.root, settings=["01.rate=2"])
    run(other)
    assert other.folder != task.folder
    assert executed(other).cells[-1].outputs[0].text == "2\n"


HOSTILE = [
    "'",
    '"',
    "\\",
    "\\'",
    '\\"',
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\x1b[2J",
    "'" * 3,
    '"' * 3,
    "%matplotlib",
    "'; import os; os.mkdir('ran'); '",
    "!touch ran",
    "{{ x }}",
    "${HOME}",
    "$(touch ran)",
    "`touch ran`",
    "\u2028",
    "\u202e",
    "\ufeff",
    "😂",
    "ё",
    "{'a': 1}",
    "None",
    "__import__('os').mkdir('ran')",
    "\\N{DEGREE SIGN}",
    "\\x41",
    "%s %d {0}",
    " ",
    "",
]


def test_a_notebook_gets_what_was_given_and_runs_nothing_of_it(tiny_course):
    values = {
        "texts": HOSTILE,
        "by_name": dict(zip(HOSTILE, HOSTILE, strict=True)),
        "numbers": [-0.0, 1e308, 2**70],
    }
    source = "texts: list = []  # a\nby_name: dict = {}  # b\nnumbers: list = []  # c"
    show = (
        "import json; print(json.dumps({'texts': texts, 'by_name': by_name, 'numbers': numbers}))"
    )
    task = tiny_course([source, show], notebooks={"01_lesson": values})
    run(task)
    assert json.loads(executed(task).cells[-1].outputs[0].text) == values
    assert not list(task.root.rglob("ran"))


def test_unknown_profile_and_number(tiny_course):
    task = tiny_course([PARAMETERS, "1"])
    with pytest.raises(CourseError, match="no profile 'smokee'; there are: sample"):
        run(Run("smokee", root=task.root))
    with pytest.raises(CourseError, match="no notebook 05; there are 01_lesson"):
        run(Run(root=task.root, only=["5"]))


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


def test_a_cell_that_outlasts_its_limit_is_named(tiny_course):
    task = tiny_course([PARAMETERS, "1", "import time\ntime.sleep(60)", "2"], cell_timeout_s=5)
    with pytest.raises(
        CourseError, match=r"code cell 3 of 4 \('import time'\): took longer than the limit of 5 s"
    ):
        run(task)


def test_a_dying_kernel_is_named(tiny_course):
    task = tiny_course([PARAMETERS, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "2"])
    with pytest.raises(CourseError, match=r"code cell 2 of 3 .*the kernel died"):
        run(task)


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


def test_the_hub_is_out_of_bounds_in_an_offline_profile(tiny_course):
    task = tiny_course([PARAMETERS, "import os\nprint(os.environ.get('HF_HUB_OFFLINE'))"])
    run(task)
    assert executed(task).cells[-1].outputs[0].text == "1\n"
    task = tiny_course(
        [PARAMETERS, "import os\nprint(os.environ.get('HF_HUB_OFFLINE')) "], offline=False
    )
    run(task)
    assert executed(task).cells[-1].outputs[0].text == "None\n"


def test_run_names_keep_other_runs_apart(tmp_path):
    for name in ("a/mine", "b/mine"):
        (tmp_path / name).mkdir(parents=True)
    names = [
        Run(data="a/mine").name,
        Run(data="b/mine").name,
        Run(encoder="a/mine").name,
        Run(data=".").name,
        Run().name,
    ]
    assert len(set(names)) == 5
    assert Run().name == "sample"
    assert Run(data="a/mine").name == Run(data=str(tmp_path / "a" / "mine")).name
    assert (
        Run("full", encoder="cointegrated/rubert-tiny2").name
        == "full-encoder-cointegrated_rubert-tiny2"
    )
    assert Run("smoke").report.parent.name == "smoke"


def test_a_folder_named_like_a_keyword_is_not_meant(tiny_course, tmp_path):
    task = tiny_course([PARAMETERS, "1"], common={"data": "sample"})
    (tmp_path / "sample").mkdir()
    assert task.parameters(task.notebooks[0])["data"] == "sample"


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


def test_scientific_notation_is_a_number(tiny_course):
    task = tiny_course([PARAMETERS, "1"])
    assert (
        Run(root=task.root, settings=["01.rate=2e-5"]).parameters(task.notebooks[0])["rate"] == 2e-5
    )
    with pytest.raises(DataError, match=r"is no YAML that can be read"):
        run(Run(root=task.root, settings=["01.rate=[1"]))


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


def test_command_reports_errors_in_one_line(capsys, monkeypatch, tiny_course):
    task = tiny_course([PARAMETERS, "1"])
    monkeypatch.setattr(runner, "Run", lambda *args, **where: Run(*args, root=task.root, **where))
    assert cli.main(["run", "--set", "01.epoch=1"]) == 1
    assert capsys.readouterr().err.startswith("viralbert: 01_lesson has no parameter 'epoch'")
    assert cli.main(["run"]) == 0
    assert cli.main(["run"]) == 0
    assert "up to date: 01_lesson" in capsys.readouterr().out


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


RUN = """
import sys
from pathlib import Path
from viralbert.course.runner import Run, run
print(run(Run(root=Path(sys.argv[1]), settings=sys.argv[2:])).executed)
"""


def started(task: Run, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(task.root), *settings],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Ends when another run is in the same cell.
MEETING = """
import time
from pathlib import Path
Path(f"../begun{epochs}").touch()
while len(list(Path("..").glob("begun*"))) < 2:
    time.sleep(0.05)
print(epochs)
"""


# Ends when it is told to.
HELD = """
import time
from pathlib import Path
Path("../begun").touch()
while not Path("../go").exists():
    time.sleep(0.05)
"""


def test_two_runs_of_one_checkout_do_not_meet(tiny_course):
    task = tiny_course([PARAMETERS, MEETING])
    both = [started(task, f"01.epochs={n}") for n in (7, 8)]
    for process in both:
        assert process.communicate(timeout=5 * HANG_S)[0] == "['01_lesson']\n"
    copies = [
        nbformat.read(path, as_version=4)
        for path in sorted(task.root.glob("runs/*/01_lesson.ipynb"))
    ]
    assert sorted(copy.cells[-1].outputs[0].text for copy in copies) == ["7\n", "8\n"]
    assert [path.name for path in (task.root / "notebooks").iterdir()] == ["01_lesson.ipynb"]


def test_a_second_run_of_one_folder_waits_and_finds_it_done(tiny_course):
    task = tiny_course([PARAMETERS, HELD], cell_timeout_s=int(HANG_S))
    first = started(task)
    until(lambda: (task.root / "begun").exists() or first.poll() is not None)
    second = started(task)
    assert any("another process is writing to" in line for line in second.stderr)
    (task.root / "go").touch()
    said = [process.communicate(timeout=5 * HANG_S)[0] for process in (first, second)]
    assert said == ["['01_lesson']\n", "[]\n"]


def test_a_killed_run_leaves_nothing_beside_the_notebooks(tiny_course):
    task = tiny_course(
        [PARAMETERS, "from pathlib import Path\nPath('begun').touch()\nimport time\ntime.sleep(60)"]
    )
    process, begun = started(task), task.root / "notebooks" / "begun"
    while not begun.exists() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert {path.name for path in (task.root / "notebooks").iterdir()} == {
        "01_lesson.ipynb",
        "begun",
    }


@pytest.mark.parametrize(
    "value", ["!!int '0x'", "[" * 5000, "!!timestamp 1", "!!python/object:os.system x", "{a: "]
)
def test_a_setting_that_is_no_yaml_is_one_line(tiny_course, value):
    task = tiny_course([PARAMETERS, "1"])
    with pytest.raises(DataError, match="is no YAML that can be read") as caught:
        Run(root=task.root, settings=[f"01.epochs={value}"]).parameters(task.notebooks[0])
    assert "\n" not in str(caught.value)
    (task.root / "profiles" / "sample.yaml").write_text(f"common: {value}")
    with pytest.raises(DataError, match=r"sample\.yaml is no YAML that can be read"):
        _ = Run(root=task.root).config


def test_sockets_of_killed_runs_go_and_those_of_others_stay(tiny_course, tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as place:
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        folder = Path(place)
        (folder / "vb-own").mkdir()
        (folder / "vb-own" / "diary.txt").write_text("mine")
        (folder / "vb-link").symlink_to(tmp_path)
        (tmp_path / RUNNING).touch()
        task = tiny_course([PARAMETERS, "import time\ntime.sleep(60)"])
        killed = started(task)
        try:
            while not list(folder.glob(f"vb-*/{RUNNING}")) or not list(folder.glob("vb-*/kernel*")):
                assert killed.poll() is None
                time.sleep(0.05)
            with runner._socket_folder() as beside:
                assert len(list(folder.glob("vb-*/kernel*"))) > 0, "the other run goes on"
        finally:
            killed.kill()
            killed.communicate()
        with runner._socket_folder() as own:
            assert {path.name for path in folder.glob("vb-*")} == {"vb-own", "vb-link", own.name}
        assert {path.name for path in folder.glob("vb-*")} == {"vb-own", "vb-link"}
        assert (folder / "vb-own" / "diary.txt").is_file() and (tmp_path / RUNNING).is_file()
        assert not beside.exists()
