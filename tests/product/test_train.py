"""`viralbert train` on a few rows of the sample with a tiny encoder."""

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from viralbert import distillation, labelled, train, trainings
from viralbert.cli import main
from viralbert.serving.predictor import ViralBERT
from viralbert.trainings import Training
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS
from viralbert_utils.encoders import pooling
from viralbert_utils.evaluation.thresholds import Thresholds
from viralbert_utils.lessons import rare_classes
from viralbert_utils.models.storage import load_classifier
from viralbert_utils.training import losses, settings
from viralbert_utils.training.loop import _Training
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
    printed = capsys.readouterr()
    assert "virality, macro-F1 on test: model 0." in printed.out
    epochs = [line for line in printed.err.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert "training loss" in epochs[0] and "validation loss" in epochs[0]
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
    monkeypatch.setattr(train, "fit_stages", None)
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
    epoch = _Training.run_epoch
    calls = []

    def cut(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(*given)

    monkeypatch.setattr(_Training, "run_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        train.run(replace(recipe, epochs=2), tmp_path)
    with pytest.raises(DataError, match="holds another training, or the data have changed since"):
        train.run(replace(recipe, epochs=2, pos_weight="clipped"), tmp_path)
    train.run(replace(recipe, epochs=2), tmp_path)
    assert len(calls) == 3, "one epoch, the one that was cut off, and that one again"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "metrics.json", "history.csv"}


def test_combo_trains_on_both_and_is_judged_by_cedr(recipe, write_csv, tmp_path):
    rng = random.Random(0)
    syllables = [a + b for a in "бвгдклмнпрст" for b in "аеиоуя"]
    texts = [" ".join("".join(rng.choices(syllables, k=3)) for _ in range(6)) for _ in range(150)]
    write_csv("cedr", text=texts[:90], labels=[f"[{k % 3}]" for k in range(90)], source=["x"] * 90)
    write_csv("emotions", text=[*texts[90:], *texts[:60]], labels=["[26]"] * 60 + ["[17]"] * 60)
    cedr, files = labelled.read(replace(recipe, data=str(tmp_path), max_rows=0))
    both, more = labelled.read(replace(recipe, data=str(tmp_path), max_rows=0, dataset="combo"))
    assert [len(files), len(more)] == [1, 2]
    for split in ("validation", "test"):
        assert both["cedr"][split][0] == cedr["cedr"][split][0]
    assert set(both["cedr"]["train"][0]) > set(cedr["cedr"]["train"][0])
    judged = {text for split in ("validation", "test") for text in both["cedr"][split][0]}
    assert not judged & set(both["cedr"]["train"][0])


def test_the_profile_of_the_emotion_service_is_what_its_document_describes():
    """A small model trained normally, a small one over-fitted, a larger one, all as ONNX, too."""
    found = trainings.profile("replicate", {"encoder": "embedded", "data": "sample"})
    assert [recipe.dataset for recipe in found.values()] == ["combo", "cedr", "combo"]
    assert [recipe.epochs for recipe in found.values()] == [35, 100, 16]
    assert [recipe.keep for recipe in found.values()] == ["best", "last", "best"]
    assert all(recipe.export_onnx for recipe in found.values())
    assert {recipe.encoder for recipe in found.values()} == {"embedded"}
    assert len({recipe.encoder for recipe in trainings.profile("replicate", {}).values()}) == 2
    with pytest.raises(DataError, match=r"no profile 'x' of trainings; there are: replicate"):
        trainings.profile("x", {})


def test_the_profile_trains_its_three_models(encoder, tmp_path, capsys, monkeypatch, manual):
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        "--profile",
        "replicate",
        "--output",
        "models",
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
    said = capsys.readouterr().out
    manual("train.md", said)
    for name, recipe in trainings.profile("replicate", {}).items():
        found = json.loads(
            (tmp_path / "models" / name / "metrics.json").read_text(encoding="utf-8")
        )
        assert found["recipe"]["dataset"] == recipe.dataset
        assert found["recipe"]["learning_rate"] == recipe.learning_rate, (
            "what is not given stays the profile's"
        )
        assert 0 <= found["figures"]["cedr"]["test"]["model"]["macro-F1"]["value"] <= 1
        assert load_classifier(tmp_path / "models" / name / "model")[2]["names"] == list(
            CEDR_CLASSES
        )
        assert (tmp_path / "models" / name / "onnx" / "model.onnx").is_file()
    assert said.count("cedr and combo are the same rows") == 3


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
    for wrong, message in (
        ({"pooling": "mean+sum"}, "pooling 'mean.sum' is not known; use cls, mean, max, attention"),
        ({"pos_weight": "much"}, "pos_weight 'much' is not known; use none, sqrt, clipped"),
        ({"keep": "worst"}, "keep 'worst' is not known; use best, last, both"),
        ({"frozen_epochs": 4}, "frozen_epochs is 4, and there are 3 epochs"),
        ({"layer_share": 0.0}, "layer_share is 0.0; expected more than 0"),
        ({"frozen_rate": -0.1}, "frozen_rate is -0.1; expected at least 0"),
        ({"virality_file": "mine.csv"}, "dataset emotions reads no virality"),
    ):
        with pytest.raises(DataError, match=message):
            Training(**wrong)
    with pytest.raises(DataError, match=r"top_layers is 2, and the encoder .* has 1; expected"):
        train.run(replace(recipe, top_layers=2), tmp_path / "out")
    with pytest.raises(
        DataError, match=r"in its own way.*: leave --pooling, --keep, --frozen-lr out"
    ):
        own = Training(dataset="viralbert", pooling="cls", keep="last", frozen_rate=1e-3)
        distillation.run(own, tmp_path)


def test_names_are_those_of_what_they_choose_from():
    assert trainings.POOLINGS == pooling.POOLINGS
    assert trainings.WEIGHTINGS == rare_classes.WEIGHTINGS


V2 = ["train", "--profile", "viralbert-v2", "--epochs", "2", "--frozen-epochs", "1"]


def test_the_published_recipe_of_viralbert_v2_runs(encoder, tmp_path, capsys):
    published = trainings.profile("viralbert-v2", {})["viralbert-v2"]
    assert (published.epochs, published.frozen_epochs, published.top_layers) == (5, 2, 2)
    rates = [
        (stage.settings.learning_rate, stage.settings.learning_rate * stage.settings.head_factor)
        for stage in train._stages(published, 2)
    ]
    assert rates[0][1] == pytest.approx(2e-5)
    assert rates[1] == pytest.approx((2e-6, 2e-6))
    mine = tmp_path / "mine.csv"
    texts = [f"{word} и {k} котов на площади" for k in range(60) for word in ("Танцы", "Отчёт")]
    pd.DataFrame({"text": texts, "label": [1, 0] * 60}).to_csv(mine, index=False)
    more = ["--top-layers", "1", "--encoder", encoder, "--max-rows", "200", "--lr", "0.01"]
    where = ["--virality-file", str(mine), "--output", str(tmp_path), "--max-length", "24"]
    assert main([*V2, *more, *where]) == 0
    assert "last epoch 0." in capsys.readouterr().out
    out = tmp_path / "viralbert-v2"
    history = pd.read_csv(out / "history.csv")
    assert list(history)[:5] == ["epoch", "train_loss", "val_loss", "val_pop", "val_emo"]
    assert history["val_loss"].tolist() == pytest.approx(history["val_pop"] + history["val_emo"])
    assert history["epoch"].tolist() == [1, 2]
    assert history["trained"].tolist() == ["heads", "heads and 1 top layer"]
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert [file["path"] for file in found["files"] if file["set"] == "virality"] == ["mine.csv"]
    assert found["recipe"]["pos_weight"] == "clipped"
    assert list(found["figures"]["virality"]["test"]) == ["model", "last epoch", "TF-IDF"]
    for folder in ("model", "model-last"):
        assert ViralBERT.load(out / folder).settings["pooling"] == "cls"


def test_frozen_epochs_leave_the_encoder_as_it_is(recipe, encoder, tmp_path):
    train.run(replace(recipe, frozen_epochs=1), tmp_path)
    before = load_file(Path(encoder) / "model.safetensors")
    after = load_file(tmp_path / "model" / "encoder" / "model.safetensors")
    for name, weights in after.items():
        if not name.startswith("pooler."):
            assert torch.equal(weights, before[name]), name


def test_best_and_last_weights_are_kept_as_asked(recipe, tmp_path, monkeypatch):
    judge = _Training.evaluate
    # A loss that rises with the epochs makes the first one the best.
    monkeypatch.setattr(
        _Training,
        "evaluate",
        lambda self, epoch, given: judge(self, epoch, given) | {"loss": epoch},
    )
    worse = replace(recipe, epochs=2, max_rows=150)
    train.run(replace(worse, keep="both"), tmp_path / "both")
    assert pd.read_csv(tmp_path / "both" / "history.csv")["best"].tolist() == [True, False]
    train.run(replace(worse, keep="last"), tmp_path / "last")
    assert pd.read_csv(tmp_path / "last" / "history.csv")["best"].iloc[-1]
    best, last, only = (
        load_file(tmp_path / folder / "head.safetensors")["head.weight"]
        for folder in ("both/model", "both/model-last", "last/model")
    )
    assert torch.equal(last, only)
    assert not torch.equal(last, best)


def test_rare_classes_count_as_asked():
    labels = np.array([[1, 0, 0]] * 9 + [[1, 1, 0]])
    truth, logits = (
        torch.tensor(labels),
        torch.tensor(np.random.default_rng(0).normal(size=(10, 3))),
    )

    def loss(how: str, task: str, columns: slice) -> float:
        rows = labelled.Rows([""] * 10, labels[:, columns])
        chosen = train._loss(Training(pos_weight=how), task, rows)
        return chosen(logits[:, columns].float(), truth[:, columns]).item()

    every, one = slice(None), slice(1, 2)
    clipped = losses.binary_cross_entropy(torch.tensor([10 / 30, 10 / 3, 10 / 3]))
    expected = clipped(logits.float(), truth).item()
    assert loss("clipped", "emotions", every) == pytest.approx(expected)
    assert loss("none", "emotions", every) != pytest.approx(expected)
    assert loss("clipped", "virality", one) == loss("none", "virality", one)
    classes = torch.tensor([0, 0, 0, 1])
    single = labelled.Rows([""] * 4, np.eye(3, dtype=int)[classes])
    found = train._loss(Training(dataset="reviews", pos_weight="clipped"), "reviews", single)
    weighted = losses.cross_entropy(torch.tensor([4 / 9, 4 / 3, 4 / 3]))
    assert found(logits[:4].float(), classes).item() == pytest.approx(
        weighted(logits[:4].float(), classes).item()
    )


def test_a_recipe_names_the_rate_that_is_used_and_knows_older_ones():
    usual = {"embedded": 1e-3, "cointegrated/rubert-tiny2": 2e-5}
    for encoder, rate in usual.items():
        recipe = trainings.recipe(Training(encoder))
        assert recipe["learning_rate"] == rate
        assert trainings._completed(recipe | {"learning_rate": 0.0}) == recipe
    assert trainings.recipe(Training(learning_rate=0.1))["learning_rate"] == 0.1


def test_too_few_rows_are_told_before_training(monkeypatch, recipe, tmp_path):
    def refuse(*_):
        raise AssertionError("an encoder was asked for")

    def rows(n: int) -> labelled.Rows:
        return labelled.Rows(["Кот."] * n, np.zeros((n, 6), dtype=int))

    parts = {"train": rows(5), "validation": rows(0), "test": rows(1)}
    monkeypatch.setattr(train, "read", lambda training: ({"cedr": parts}, []))
    monkeypatch.setattr(train, "_encoder", refuse)
    with pytest.raises(DataError, match=r"cedr: expected at least 1 row .* found 5 of train, 0 of"):
        train.run(recipe, tmp_path / "out")


def test_a_class_that_no_text_has_is_no_warning(recipe):
    labels = np.zeros((40, 6), dtype=int)
    labels[::2, 0] = labels[1::2, 1] = 1
    rows = labelled.Rows([f"кот и дождь {k}" for k in range(40)], labels)
    parts = dict.fromkeys(("train", "validation", "test"), rows)
    scores = {"model": dict.fromkeys(("validation", "test"), labels * 0.5)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train._figures(recipe, "cedr", parts, scores)
    assert found["test"]["TF-IDF"]["per class"]["fear"]["ROC AUC"] is None
