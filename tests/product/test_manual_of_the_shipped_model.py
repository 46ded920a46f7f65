"""Outputs that the manuals show, of commands that use the model of the package."""

import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.product.manual import blocks, shortened
from viralbert.cli import main
from viralbert.serving import service, shipped
from viralbert_utils.base.files import ROOT

TALKS = ROOT / "data" / "sample" / "subtitles"
TEXT = "Муж забыл меня на заправке и вспомнил через сто километров. Ржу до сих пор"


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    return run


def test_predict(say, manual):
    assert TEXT in (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    manual("predict.md", shortened(say("predict", TEXT)))


def test_moments(say, manual, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shutil.copy(sorted(TALKS.glob("*.srt"))[0], "talk.srt")
    manual("predict.md", say("moments", "talk.srt", "-o", "out"))


def test_archive(say, manual):
    Path("talks/2024").mkdir(parents=True)
    for path, copy in zip(sorted(TALKS.glob("*.srt")), ("2024/talk.srt", "b.srt"), strict=False):
        shutil.copy(path, Path("talks") / copy)
    line = ("moments", "talks/", "-o", "moments/", "--engine", "local")
    manual("archives.md", say(*line))
    assert say(*line).startswith("0 files done, 2 were complete before")


def test_evaluate(say, manual):
    manual("train.md", say("evaluate", "--dataset", "cedr"))


def test_serve(manual):
    with TestClient(service.create_app(str(shipped.folder("cpu")))) as client:
        answer = client.post("/v1/predict", json={"text": "Кот сам открыл дверь!"})
    (prediction,) = answer.json()["predictions"]
    line = shortened(json.dumps(prediction))
    manual("serve.md", f'{{"predictions": [{line}]}}')


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_output_in_a_manual_names_a_test(page):
    assert len(blocks(page)) == page.read_text(encoding="utf-8").count("<!-- output of ")
    for test in blocks(page):
        path, _, name = test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {name}(" in source and "manual" in source
