"""The command where there is no checkout: the wheel in a folder of its own, used from an empty one.

Everything that a command needs must be in the wheel, because nothing else is there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from copy import copy
from pathlib import Path

import pytest

from viralbert_utils.base.files import ROOT
from viralbert_utils.data.sources import load

SOURCES = ("pyproject.toml", "README.md", "LICENSE")


class Place:
    """An empty folder, and the packages as pip installs them."""

    def __init__(self, packages: Path, folder: Path) -> None:
        self.folder = folder
        self.command = [sys.executable, "-m", "viralbert"]
        self.environment = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}

    def call(self, *arguments: str, status: int = 0) -> str:
        """What a command prints, its errors included."""
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == status, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two packages as a wheel brings them; built from a copy, for pip writes beside them."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "packages"))
    for name in ("viralbert", "viralbert_utils"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(ROOT / name, source / name)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(target), str(source)], check=True
    )
    return target


@pytest.fixture(scope="module")
def place(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(packages, tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def trained(place: Place, tmp_path_factory: pytest.TempPathFactory, save_tiny_encoder) -> Path:
    """A tiny model that `viralbert train` has left in the empty folder, and its export."""
    save_tiny_encoder(place.folder / "encoder")
    for name in ("emotions", "virality"):
        folder = place.folder / "mydata" / name
        folder.mkdir(parents=True)
        load(name).splits["all"].head(400).to_csv(folder / "train.csv", index=False)
    options = ["--dataset", "multitask", "--epochs", "1", "--max-length", "24"]
    printed = place.call(
        "train", "--encoder", "encoder", "--data", "mydata", "--output", "out", *options
    )
    assert "out: virality, macro-F1 on test: model 0." in printed
    printed = place.call("export", "--model", "out/model", "--output", "onnx")
    assert printed.startswith("onnx: ")
    return place.folder / "out" / "model"


def test_the_packages_are_those_of_the_wheel(place, packages):
    code = "import viralbert, viralbert_utils; print(viralbert.__file__, viralbert_utils.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place.folder,
        env=place.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert all(Path(name).is_relative_to(packages) for name in done.stdout.split())


@pytest.mark.parametrize("model", ["out/model", "onnx"])
def test_texts_are_predicted(place, trained, model):
    (line,) = place.call("predict", "--model", model, "Кот сам открыл дверь.").splitlines()[-1:]
    assert 0 < json.loads(line)["viral_score"] < 1


def test_moments_are_found(place, trained):
    shutil.copy(next((ROOT / "data/sample/subtitles").glob("*.srt")), place.folder / "talk.srt")
    printed = place.call("moments", "talk.srt", "--model", "onnx", "--output", "found")
    assert "rank" in printed
    assert (place.folder / "found" / "talk" / "moments.json").is_file()


def test_a_model_is_served(place, trained):
    process = subprocess.Popen(
        [*place.command, "serve", "--model", "onnx", "--port", "0"],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        (url,) = re.findall(r"http://\S+", process.stdout.readline())
        for path in ("/", "/service.js", "/docs", "/swagger-ui/swagger-ui.css", "/readyz"):
            assert urllib.request.urlopen(url + path, timeout=60).status == 200
    finally:
        process.terminate()
        process.communicate()


def test_profiles_of_trainings_come_along(place):
    printed = place.call("train", "--profile", "x", "--output", "new", status=1)
    assert "no profile 'x' of trainings; there are: replicate" in printed


def test_the_environment_is_checked_without_a_lock(place):
    assert re.search(r"\[ok\] (\d+) of \1 packages are there", place.call("check-env"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--output", "new"], "clone it, and give --data CLONE/data/sample or call pip"),
        (["run"], "viralbert run needs a checkout of the course's repository"),
        (["report"], "viralbert report needs a checkout of the course's repository"),
        (["download"], "viralbert download needs a checkout of the course's repository"),
    ],
)
def test_what_lies_in_a_checkout_is_named_where_there_is_none(place, arguments, message):
    (line,) = place.call(*arguments, status=1).splitlines()
    assert message in line


@pytest.mark.parametrize(
    "arguments", [["predict", "Кот"], ["moments", "a.srt", "--output", "o"], ["serve"]]
)
def test_a_package_without_its_model_says_what_to_do(place, packages, arguments):
    shutil.copy(next((ROOT / "data/sample/subtitles").glob("*.srt")), place.folder / "a.srt")
    model, away = packages / "viralbert" / "model", packages / "away"
    if model.is_dir():
        model.rename(away)
    try:
        (line,) = place.call(*arguments, status=1).splitlines()
    finally:
        if away.is_dir():
            away.rename(model)
    assert "holds no model: install the project again, or name a model of your own" in line


# what an exported model needs

PRINT_MODULES = """
import json, sys
from viralbert.cli import main
main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
"""
TRAINING = {"torch", "transformers", "pandas", "sklearn", "datasets", "matplotlib", "nbformat"}
OF_SUBTITLES = {"pysubs2", "razdel"}
PREDICTING = {
    "viralbert",
    "viralbert.cli",
    *(
        f"viralbert.commands{module}"
        for module in (
            "",
            ".answers",
            ".course",
            ".moments",
            ".options",
            ".service",
            ".training",
            ".training_data",
        )
    ),
    "viralbert.moments",
    "viralbert.moments.limits",
    "viralbert.moments.scores",
    "viralbert.packages",
    "viralbert.pipes",
    "viralbert.places",
    "viralbert.serving",
    "viralbert.serving.aims",
    "viralbert.serving.onnx_model",
    "viralbert.serving.predictor",
    "viralbert.serving.shipped",
    "viralbert.serving.text_batches",
    "viralbert.terminal",
    "viralbert.trainings",
    "viralbert_utils",
    "viralbert_utils.base",
    "viralbert_utils.base.cache",
    "viralbert_utils.base.errors",
    "viralbert_utils.base.files",
    "viralbert_utils.base.texts",
    "viralbert_utils.base.tokens",
    "viralbert_utils.base.variables",
    "viralbert_utils.data",
    "viralbert_utils.data.emotions",
    "viralbert_utils.evaluation",
    "viralbert_utils.evaluation.calibration",
    "viralbert_utils.evaluation.metrics",
    "viralbert_utils.evaluation.thresholds",
}
SERVING = PREDICTING | {
    "viralbert.moments.cue_text",
    "viralbert.moments.encodings",
    "viralbert.moments.formats",
    "viralbert.moments.outputs",
    "viralbert.moments.ranking",
    "viralbert.moments.recogniser_json",
    "viralbert.moments.subtitles",
    "viralbert.moments.timed_text",
    "viralbert.moments.units",
    "viralbert.serving.bodies",
    "viralbert.serving.connections",
    "viralbert.serving.gate",
    "viralbert.serving.limits",
    "viralbert.serving.models",
    "viralbert.serving.names",
    "viralbert.serving.refusals",
    "viralbert.serving.request_batches",
    "viralbert.serving.server",
    "viralbert.serving.service",
}


def own(modules: list[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in ("viralbert", "viralbert_utils")}


def modules_after(place: Place, *arguments: str) -> list[str]:
    """What is imported when a command has ended."""
    printing = copy(place)
    printing.command = [sys.executable, "-c", PRINT_MODULES]
    return json.loads(printing.call(*arguments).splitlines()[-1])


def test_predicting_with_an_export_imports_no_more_than_it_needs(place, trained):
    modules = modules_after(place, "predict", "--model", "onnx", "Кот сам открыл дверь.")
    assert own(modules) == PREDICTING
    assert not set(modules) & (TRAINING | OF_SUBTITLES)


def test_a_table_that_is_refused_loads_no_network(place):
    (place.folder / "empty.csv").write_text("text,label\n")
    modules = modules_after(place, "predict", "--table", "empty.csv", "--model", ".")
    assert "pandas" in modules
    assert not set(modules) & (TRAINING - {"pandas"})


def test_serving_an_export_imports_no_more_than_it_needs(place, trained):
    process = subprocess.Popen(
        [sys.executable, "-c", PRINT_MODULES, "serve", "--model", "onnx", "--port", "0"],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    (url,) = re.findall(r"http://\S+", process.stdout.readline())
    cues = [{"text": "Кот сам открыл дверь.", "start": 0.5, "end": 30}]
    for path, body in (("predict", {"text": "Кот ушёл."}), ("moments", {"cues": cues})):
        request = urllib.request.Request(
            f"{url}/v1/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        assert urllib.request.urlopen(request, timeout=60).status == 200
    process.terminate()
    modules = json.loads(process.communicate()[0].splitlines()[-1])
    assert own(modules) == SERVING
    assert not set(modules) & TRAINING
