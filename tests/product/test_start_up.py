"""What a command imports before it says that an argument is wrong: nothing that takes long."""

import json
import os
import subprocess
import sys

import pytest

from viralbert_utils.base.files import ROOT

HEAVY = {
    "datasets",
    "fastapi",
    "matplotlib",
    "nbformat",
    "onnxruntime",
    "pandas",
    "papermill",
    "pysubs2",
    "razdel",
    "scipy",
    "sklearn",
    "sphinx",
    "torch",
    "transformers",
    "uvicorn",
}
CALL = """
import json, sys
from viralbert.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
print(json.dumps([status, sorted(sys.modules)]))
"""


def imported(*arguments: str) -> tuple[int, set[str]]:
    """The exit status of a command, and the modules that are there at its end."""
    done = subprocess.run(
        [sys.executable, "-c", CALL, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    return status, set(modules)


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        (0, "--help"),
        (0, "predict --help"),
        (0, "run --help"),
        (0, "audit --help"),
        (2, ""),
        (2, "predikt"),
        (2, "predict --precision float8 text"),
        (1, "predict"),
        (1, "predict --file a.txt text"),
        (1, "predict --table a.csv"),
        (2, "translate --file a.csv"),
        (1, "translate --file a.csv --config raw --output b.csv"),
        (2, "moments talk.srt"),
        (1, "moments talk.srt --output out --engine local"),
        (1, "moments talk.srt --output out --min 60 --max 15"),
        (1, "moments . --output out --video talk.mp4 --engine local"),
        (2, "serve --port x"),
        (1, "serve --limit requests=0"),
        (1, "serve --model a=x --model a=y"),
        (2, "export model"),
        (1, "train --output out --dataset imdb"),
        (1, "train --output out --epochs 0"),
        (1, "train --output out --profile none"),
        (1, "run --profile none"),
        (1, "run --only 99"),
        (1, "run --set 01.speed=2"),
        (1, "run --set 01.seed=fast"),
        (1, "download --only 99"),
        (2, "pretrain --output out"),
        (2, "audit --file a.csv"),
        (1, "audit --file a.csv --output b.csv --folds 1"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_heavy_is_imported(expected, line):
    status, modules = imported(*line.split())
    assert status == expected
    assert not modules & HEAVY


def test_the_package_gives_its_predictor_when_it_is_asked_for():
    code = """
import sys
import viralbert
before = set(sys.modules)
from viralbert import Predictor, ViralBERT
from viralbert.serving import predictor
assert (Predictor, ViralBERT) == (predictor.Predictor, predictor.ViralBERT)
assert not hasattr(viralbert, "Virality")
print("viralbert.serving" in before, sorted({"numpy", "torch"} & before), "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "[]", "False"]
