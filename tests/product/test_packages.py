"""What is said where a package is missing: the same line everywhere."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product.course.lessons import PARAMETERS
from tests.product.two_words import srt
from viralbert import packages
from viralbert.cli import main
from viralbert.course.catalogue import CourseError
from viralbert.course.runner import run
from viralbert.serving.onnx_model import OnnxModel
from viralbert_utils.base.errors import DataError


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ray.data", "the package ray is not installed: pip install 'viralbert-course[archives]'"),
        (
            "opentimelineio",
            "the package opentimelineio is not installed: pip install 'viralbert-course[video]'",
        ),
        (
            "onnxruntime",
            "the package onnxruntime is not installed: pip install 'viralbert-course[serve]'",
        ),
        (
            "sklearn.svm",
            "the package scikit-learn is not installed: pip install 'viralbert-course'",
        ),
        ("tokenizers", "the package transformers is not installed: pip install 'viralbert-course'"),
    ],
)
def test_a_module_leads_to_its_package_and_what_brings_it(module, line):
    assert packages.missing(module) == line
    assert packages.is_own(module)


@pytest.mark.parametrize("module", ["pandsa", "torchvision", "onnx_graphsurgeon", "os"])
def test_other_modules_are_not_ours(module):
    assert not packages.is_own(module)


def test_an_export_without_its_runtime_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        DataError, match=r"onnxruntime is not installed: pip install 'viralbert-course\[serve\]'"
    ):
        OnnxModel.load(tmp_path)


def test_a_notebook_that_lacks_a_package_says_what_to_install(tiny_course):
    hidden = "import sys\nsys.modules['onnxscript'] = None"
    task = tiny_course(
        [PARAMETERS, f"{hidden}\nraise ModuleNotFoundError(\"No module named 'onnxscript.ir'\")"]
    )
    with pytest.raises(
        CourseError, match=r"code cell 2 of 2 .*'viralbert-course\[serve\]'\); the copy"
    ) as caught:
        run(task)
    assert "\n" not in str(caught.value)
    with pytest.raises(CourseError, match="No module named 'pandsa'; the copy"):
        run(tiny_course([PARAMETERS, "import pandsa"]))


# a command without its package

WITHOUT = """
import sys
import threading
sys.modules[sys.argv[1]] = None
from viralbert import cli
if sys.argv[2] == "report":  # there may be no run to report on
    from viralbert.course import report
    report.report = lambda run: report.build_site(run, {}, "# Report", run.report / "site", {})
sys.exit(cli.main(sys.argv[2:]))
"""
TRAIN, PRETRAIN = (
    ["train", "--output", "out"],
    ["pretrain", "--source", "a.txt=1", "--output", "out"],
)
PREDICT = ["predict", "--model", "model", "Дождь."]
EXPORT = ["export", "--model", "model", "-o", "exported"]
SERVE, TRANSLATE = (
    ["serve", "--model", "model", "--port", "0"],
    ["translate", "--file", "en.csv", "-o", "ru.csv"],
)
MOMENTS = ["moments", "talk.srt", "-o", "out", "--model", "model"]
LACKING = [
    ("torch", TRAIN, "torch", ""),
    ("transformers", TRAIN, "transformers", ""),
    ("torch", PRETRAIN, "torch", ""),
    ("torch", ["run", "--profile", "smoke", "--set", "01.seed=78"], "torch", ""),
    ("yaml", ["run", "--profile", "smoke"], "pyyaml", ""),
    ("papermill", ["run", "--profile", "smoke", "--set", "01.seed=77"], "papermill", ""),
    ("sphinx", ["report"], "sphinx", "[report]"),
    ("myst_nb", ["report"], "myst-nb", "[report]"),
    ("torch", PREDICT, "torch", ""),
    ("torch", MOMENTS, "torch", ""),
    ("pysubs2", MOMENTS, "pysubs2", ""),
    ("torch", EXPORT, "torch", ""),
    ("onnx", EXPORT, "onnx", "[serve]"),
    ("fastapi", SERVE, "fastapi", "[serve]"),
    ("starlette", SERVE, "fastapi", "[serve]"),
    ("python_multipart", SERVE, "python-multipart", "[serve]"),
    ("torch", SERVE, "torch", ""),
    ("torch", TRANSLATE, "torch", ""),
]


def without(module: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "model").mkdir()
    (folder / "model" / "classifier.json").write_text("{}")
    (folder / "en.csv").write_text("text\nhello\n")
    srt(folder / "talk.srt")
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, module, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "arguments", "package", "extra"),
    LACKING,
    ids=[f"{case[1][0]}-{case[0]}" for case in LACKING],
)
def test_a_command_without_its_package_says_what_to_install(
    module, arguments, package, extra, tmp_path
):
    result = without(module, arguments, tmp_path)
    assert result.stderr == (
        f"viralbert {arguments[0]}: the package {package} is not installed: pip install "
        f"'viralbert-course{extra}'\n"
    )
    assert result.returncode == 1


def test_check_env_without_torch_still_checks_the_rest(tmp_path):
    result = without("torch", ["check-env"], tmp_path)
    assert result.returncode == 1 and not result.stderr
    assert re.search(
        r"as in requirements.lock\n\[missing\] Python .* without torch: no model can be trained",
        result.stdout,
    )


def test_an_archive_without_ray_says_what_to_install(tmp_path):
    command = ["moments", ".", "-o", "out", "--model", "model", "--engine", "ray"]
    result = without("ray", command, tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    expected = (
        "viralbert: the package ray is not installed: pip install 'viralbert-course[archives]', "
        "or use the engine"
    )
    assert result.stderr.startswith(expected)


@pytest.mark.parametrize("name", ["viralbert.translation", "_lzma", None])
def test_what_pip_cannot_bring_is_no_message(name, monkeypatch):
    from viralbert import translation

    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module", name=name)

    monkeypatch.setattr(translation, "translate_file", fail)
    with pytest.raises(ModuleNotFoundError):
        main(TRANSLATE)


def test_a_project_that_is_not_installed_names_itself(monkeypatch, capsys):
    from viralbert import packages, translation

    def fail(*_: object) -> None:
        raise importlib.metadata.PackageNotFoundError("onnx")

    monkeypatch.setattr(translation, "translate_file", fail)
    monkeypatch.setattr(packages.importlib.metadata, "requires", fail)
    assert main(TRANSLATE) == 1
    assert capsys.readouterr().err.endswith(
        "the package onnx is not installed: pip install 'viralbert-course'\n"
    )
