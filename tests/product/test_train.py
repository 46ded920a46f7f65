"""`viralbert train` on a few rows of the sample with a tiny encoder."""

import json
import random
from dataclasses import replace

import pandas as pd
import pytest

from viralbert import train, trainings
from viralbert.cli import main
from viralbert.serving.predictor import ViralBERT
from viralbert.trainings import Training
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS
from viralbert_utils.evaluation.thresholds import Thresholds
from viralbert_utils.models.storage import load_classifier
from viralbert_utils.training import loop, settings
from viralbert_utils.training.settings import Settings


@pytest.fixture
def recipe(encoder) -> Training:
    return Training(
        encoder, "cedr", epochs=1, learning_rate=1e-3, max_length=24, max_rows=300, batch_size=64
    )


def test_the_command_leaves_model_figures_and_what_was_used(encoder, tmp_path, capsys):
    command = [
        "train",
        "--output",
        str(tmp_path / "out"),
        "--encoder",
        encoder,
        "--dataset",
        "multitask",
        "--epochs",
        "2",
        "--lr",
        "0.001",
        "--scheduler",
        "linear",
        "--batch-size",
        "64",
        "--max-length",
        "24",
        "--max-rows",
        "400",
        "--evaluate",
        "test",
        "--export-onnx",
        "--note",
        "проба",
    ]
    assert main(command) == 0
    assert "virality, macro-F1 on test: model 0." in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model",
        "onnx",
        "metrics.json",
        "history.csv",
    }
    found = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert found["recipe"]["note"] == "проба"
    assert {file["set"] for file in found["files"]} == {"emotions", "virality"}
    assert all(len(file["sha256"]) == 64 for file in found["files"])
    assert list(found["figures"]["emotions"]) == ["test"]
    figure = found["figures"]["virality"]["test"]["TF-IDF"]["macro-F1"]
    assert 0 < figure["low"] <= figure["value"] <= figure["high"]
    rates = pd.read_csv(tmp_path / "out" / "history.csv")["learning_rate"]
    assert len(rates) == 2
    model = ViralBERT.load(tmp_path / "out" / "model")
    found = model.predict("Кот открыл дверь.").probabilities
    assert tuple(found) == EMOTIONS
    exported = ViralBERT.load(tmp_path / "out" / "onnx").predict("Кот открыл дверь.").probabilities
    assert list(exported.values()) == pytest.approx(list(found.values()), abs=1e-4)


def test_a_finished_training_is_not_repeated_and_not_mixed_up(recipe, tmp_path, monkeypatch):
    first = train.run(recipe, tmp_path)
    assert list(first["figures"]["cedr"]) == ["dev", "test"]
    assert load_classifier(tmp_path / "model")[2]["names"] == list(CEDR_CLASSES)
    assert Thresholds.load(tmp_path / "model" / "thresholds" / "cedr.json").names == CEDR_CLASSES
    monkeypatch.setattr(loop, "fit", None)
    assert train.run(recipe, tmp_path) == first
    with pytest.raises(DataError, match="holds another training"):
        train.run(replace(recipe, epochs=2), tmp_path)


def test_a_finished_training_is_not_taken_for_one_of_other_data(recipe, write_csv, tmp_path):
    texts = [f"Текст номер {k} о погоде и котах" for k in range(120)]

    def labels(shift: int) -> list[str]:
        return [f"[{(k + shift) % 6}]" if (k + shift) % 6 < 5 else "[]" for k in range(120)]

    given = replace(recipe, data=str(write_csv("cedr", text=texts, labels=labels(0))))
    train.run(given, tmp_path / "out")
    write_csv("cedr", text=texts, labels=labels(1))
    with pytest.raises(
        DataError,
        match=r"the data have changed since .*metrics.json was written; give another folder",
    ):
        train.run(given, tmp_path / "out")


def test_wrong_numbers_are_refused_before_anything_is_done(recipe, encoder, tmp_path, capsys):
    for wrong in (
        "--epochs 0",
        "--batch-size 0",
        "--max-length 2",
        "--max-rows -5",
        "--lr nan",
        "--lr -1",
    ):
        name = {"--lr": "learning_rate"}.get(
            wrong.split()[0], wrong.split()[0][2:].replace("-", "_")
        )
        assert main(["train", "--output", str(tmp_path / "out"), *wrong.split()]) == 1
        assert f"{name} is " in capsys.readouterr().err
    with pytest.raises(
        DataError, match=r"max_length is 4096, and the encoder .* reads \d+ at most"
    ):
        train.run(replace(recipe, max_length=4096), tmp_path / "out")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        train.run(recipe, tmp_path / "file")
    assert not (tmp_path / "out").exists()
    for wrong in ({"batch_size": 0}, {"accumulate": 0}, {"patience": -1}):
        with pytest.raises(DataError, match="expected at least"):
            settings.check_training({}, Settings(**wrong), False)


def test_a_stopped_training_goes_on(recipe, tmp_path, monkeypatch):
    epoch = loop._Training.run_epoch
    calls = []

    def cut(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(*given)

    monkeypatch.setattr(loop._Training, "run_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        train.run(replace(recipe, epochs=2), tmp_path)
    train.run(replace(recipe, epochs=2), tmp_path)
    assert len(calls) == 3, "one epoch, the one that was cut off, and that one again"
    assert not (tmp_path / "checkpoint.pt").exists()


def test_combo_trains_on_both_and_is_judged_by_cedr(recipe, write_csv, tmp_path):
    rng = random.Random(0)
    syllables = [a + b for a in "бвгдклмнпрст" for b in "аеиоуя"]
    texts = [" ".join("".join(rng.choices(syllables, k=3)) for _ in range(6)) for _ in range(150)]
    write_csv("cedr", text=texts[:90], labels=[f"[{k % 3}]" for k in range(90)], source=["x"] * 90)
    write_csv("emotions", text=[*texts[90:], *texts[:60]], labels=["[26]"] * 60 + ["[17]"] * 60)
    cedr, files = train.read(replace(recipe, data=str(tmp_path), max_rows=0))
    both, more = train.read(replace(recipe, data=str(tmp_path), max_rows=0, dataset="combo"))
    assert [len(files), len(more)] == [1, 2]
    for split in ("validation", "test"):
        assert both["cedr"][split][0] == cedr["cedr"][split][0]
    assert set(both["cedr"]["train"][0]) > set(cedr["cedr"]["train"][0])
    judged = {text for split in ("validation", "test") for text in both["cedr"][split][0]}
    assert not judged & set(both["cedr"]["train"][0])


def test_the_profile_names_three_trainings_with_exchangeable_encoders():
    found = trainings.profile("replicate", {"encoder": "embedded", "data": "sample"})
    assert [recipe.dataset for recipe in found.values()] == ["cedr", "combo", "combo"]
    assert {recipe.encoder for recipe in found.values()} == {"embedded"}
    assert len({recipe.encoder for recipe in trainings.profile("replicate", {}).values()}) == 2
    with pytest.raises(DataError, match=r"no profile 'x' of trainings; there are: replicate"):
        trainings.profile("x", {})


def test_the_profile_trains_its_three_models(encoder, tmp_path):
    command = [
        "train",
        "--profile",
        "replicate",
        "--output",
        str(tmp_path),
        "--encoder",
        encoder,
        "--data",
        "sample",
        "--epochs",
        "1",
        "--max-length",
        "16",
        "--max-rows",
        "200",
    ]
    assert main(command) == 0
    for name, recipe in trainings.profile("replicate", {}).items():
        found = json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8"))
        assert found["recipe"]["dataset"] == recipe.dataset
        assert found["recipe"]["learning_rate"] == recipe.learning_rate, (
            "what is not given stays the profile's"
        )
        assert 0 <= found["figures"]["cedr"]["test"]["model"]["macro-F1"]["value"] <= 1
        assert load_classifier(tmp_path / name / "model")[2]["names"] == list(CEDR_CLASSES)


def test_schedules():
    assert [settings.cosine_with_warmup(step, 10, 2, "constant") for step in range(4)] == [
        0.5,
        1,
        1,
        1,
    ]
    assert settings.cosine_with_warmup(6, 10, 2, "linear") == pytest.approx(0.5)


def test_bad_recipes_are_named(recipe, capsys, tmp_path):
    with pytest.raises(
        DataError, match="dataset 'imdb' is not known; use cedr, combo, emotions, multitask"
    ):
        Training(dataset="imdb")
    assert main(["train", "--output", str(tmp_path), "--evaluate", "train"]) == 1
    assert "cannot evaluate train" in capsys.readouterr().err
