"""Two runs at once, and what a killed one leaves."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest

from tests.product.course.lessons import PARAMETERS
from tests.timing import HANG_S, until
from viralbert.course import runner
from viralbert.course.runner import RUNNING, Run
from viralbert_utils.base.files import ROOT

pytestmark = pytest.mark.usefixtures("in_repository")
RUN = """
import sys
from pathlib import Path
from viralbert.course.runner import Run, run
print(run(Run(root=Path(sys.argv[1]), settings=sys.argv[2:])).executed)
"""


def started(run: Run, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(run.root), *settings],
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
    run = tiny_course([PARAMETERS, MEETING])
    both = [started(run, f"01.epochs={n}") for n in (7, 8)]
    for process in both:
        assert process.communicate(timeout=5 * HANG_S)[0] == "['01_lesson']\n"
    copies = [
        nbformat.read(path, as_version=4)
        for path in sorted(run.root.glob("runs/*/01_lesson.ipynb"))
    ]
    assert sorted(copy.cells[-1].outputs[0].text for copy in copies) == ["7\n", "8\n"]
    assert [path.name for path in (run.root / "notebooks").iterdir()] == ["01_lesson.ipynb"]


def test_a_second_run_of_one_folder_waits_and_finds_it_done(tiny_course):
    run = tiny_course([PARAMETERS, HELD], cell_timeout_s=int(HANG_S))
    first = started(run)
    until(lambda: (run.root / "begun").exists() or first.poll() is not None)
    second = started(run)
    assert any("another process is writing to" in line for line in second.stderr)
    (run.root / "go").touch()
    said = [process.communicate(timeout=5 * HANG_S)[0] for process in (first, second)]
    assert said == ["['01_lesson']\n", "[]\n"]


def test_a_killed_run_leaves_nothing_beside_the_notebooks(tiny_course):
    run = tiny_course(
        [PARAMETERS, "from pathlib import Path\nPath('begun').touch()\nimport time\ntime.sleep(60)"]
    )
    process, begun = started(run), run.root / "notebooks" / "begun"
    while not begun.exists() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert {path.name for path in (run.root / "notebooks").iterdir()} == {
        "01_lesson.ipynb",
        "begun",
    }


def test_sockets_of_killed_runs_go_and_those_of_others_stay(tiny_course, tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as place:
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        folder = Path(place)
        (folder / "vb-own").mkdir()
        (folder / "vb-own" / "diary.txt").write_text("mine")
        (folder / "vb-link").symlink_to(tmp_path)
        (tmp_path / RUNNING).touch()
        run = tiny_course([PARAMETERS, "import time\ntime.sleep(60)"])
        killed = started(run)
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
