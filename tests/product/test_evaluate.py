"""`viralbert evaluate`, figures of each class, and reviews with their marks."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from tests.product.two_words import TwoWords
from viralbert import evaluate, labelled, train
from viralbert.cli import main
from viralbert.trainings import Training
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.sources import save_sets


@pytest.fixture
def recipe(encoder) -> Training:
    return Training(
        encoder, "cedr", epochs=1, learning_rate=1e-3, max_length=24, max_rows=300, batch_size=64
    )


def test_figures_of_each_class_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (80, 3)), rng.random((80, 3))
    decided = (scores > 0.6).astype(int)
    rows = labelled.Rows([""] * 80, np.column_stack([labels, np.zeros(80, dtype=int)]))
    scores, decided = (np.column_stack([part, np.zeros(80)]) for part in (scores, decided))
    found = evaluate.figures(rows, scores, decided, "abcd", False)
    by_class = precision_recall_fscore_support(rows.labels, decided, zero_division=0)
    for k, name in enumerate("abcd"):
        own = found["per class"][name]
        assert [own["precision"], own["recall"], own["F1"]] == pytest.approx(
            [values[k] for values in by_class[:3]], abs=1e-6
        )
    aucs = [roc_auc_score(labels[:, k], scores[:, k]) for k in range(3)]
    assert [found["per class"][name]["ROC AUC"] for name in "abc"] == pytest.approx(aucs)
    assert found["per class"]["d"]["ROC AUC"] is None, "there is no text of it"
    assert found["ROC AUC"] == pytest.approx(np.mean(aucs))
    for k, name in enumerate(("precision", "recall")):
        assert found[name] == pytest.approx(by_class[k].mean(), abs=1e-6)
    json.dumps(found, allow_nan=False)


def test_a_model_is_evaluated_without_training(recipe, tmp_path, capsys):
    trained = train.run(replace(recipe, export_onnx=True), tmp_path)
    assert trained["notes"] == [labelled.SAME_ROWS, train.DEV_CROSS_FITTED]
    of_model = trained["figures"]["cedr"]["test"]["model"]
    capsys.readouterr()
    for folder, off in (("model", 1e-9), ("onnx", 0.02)):
        command = ["evaluate", "--model", str(tmp_path / folder), "--max-rows", "300"]
        assert main([*command, "-o", str(tmp_path / f"{folder}.json")]) == 0
        found = json.loads((tmp_path / f"{folder}.json").read_text(encoding="utf-8"))
        again = found["figures"]["cedr"]["test"]
        assert again["macro-F1"]["value"] == pytest.approx(of_model["macro-F1"]["value"], abs=off)
        assert again["per class"]["joy"] == pytest.approx(of_model["per class"]["joy"], abs=off)
        assert found["files"] == trained["files"]
        shown = capsys.readouterr().out
        assert f"cedr, {trained['rows']['cedr']['test']} texts of test: macro-F1 0." in shown
        assert "precision" in shown and "\n  joy " in shown and "\n  mean " in shown
        assert labelled.SAME_ROWS in shown
    wrong = ["evaluate", "--model", str(tmp_path / "model"), "--dataset", "virality"]
    assert main(wrong) == 1
    assert "has the tasks cedr; expected virality" in capsys.readouterr().err


def _reviews(write_csv, **more: list) -> Path:
    rng = random.Random(0)
    words = {"bad": "скучно глупо провал", "neutral": "местами средне терпимо"}
    words["good"] = "восторг шедевр прекрасно"
    labels = [rng.choice(list(words)) for _ in range(240)]
    texts = [f"{' '.join(rng.choices(words[y].split(), k=6))} {k}" for k, y in enumerate(labels)]
    films = [f"Фильм {k % 12}" for k in range(240)]
    return write_csv("reviews", film=films, text=texts, label=labels, **more)


def test_reviews_and_their_marks_are_classes_by_choice(recipe, write_csv, tmp_path, capsys):
    marks = [str(k % 11) if k % 8 else "-" for k in range(240)]
    data = str(_reviews(write_csv, grade10=marks))
    found = train.run(replace(recipe, dataset="grades", data=data), tmp_path / "grades")
    assert 0 < sum(found["rows"]["grades"].values()) <= 240 - 30
    assert found["files"][1] == {"set": "grades", "reviews without a mark": 30}
    figures = found["figures"]["grades"]["test"]["model"]
    assert list(figures["per class"]) == [str(mark) for mark in range(11)]
    assert {"macro-F1", "accuracy", "precision", "recall"} <= figures.keys()
    capsys.readouterr()
    model = str(tmp_path / "grades" / "model")
    assert main(["predict", "--model", model, "Пересматривал три раза, восторг"]) == 0
    answer = json.loads(capsys.readouterr().out)["grades"]
    assert len(answer["labels"]) == 1, "a review has one mark"
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    sets, _ = labelled.read(replace(recipe, dataset="reviews", data=data, max_rows=0))
    films = [set(rows.groups) for rows in sets["reviews"].values()]
    assert not films[0] & films[1] and not films[0] & films[2] and not films[1] & films[2]
    with pytest.raises(DataError, match=r"reviews of 'sample' \(all\) have no column grade10"):
        labelled.read(replace(recipe, dataset="grades", data="sample"))
    _reviews(write_csv, grade10=["very good"] * 240)
    with pytest.raises(DataError, match="no value of grade10 is a mark from 0 to 10; found 'very"):
        labelled.read(replace(recipe, dataset="grades", data=data))


def test_a_model_of_reviews_answers_own_texts(recipe, write_csv, tmp_path, capsys):
    data = str(_reviews(write_csv))
    slow = replace(recipe, dataset="reviews", data=data, epochs=6, learning_rate=0.02)
    train.run(replace(slow, pos_weight="clipped"), tmp_path / "out")
    capsys.readouterr()
    model = str(tmp_path / "out" / "model")
    own = ["скучно глупо провал скучно", "восторг шедевр прекрасно восторг"]
    assert main(["predict", "--model", model, *own]) == 0
    answers = [json.loads(line)["reviews"] for line in capsys.readouterr().out.splitlines()]
    assert [answer["labels"][0]["name"] for answer in answers] == ["bad", "good"]
    assert main(["evaluate", "--model", model, "--data", data]) == 0
    heading = capsys.readouterr().out.splitlines()[0]
    shown = re.fullmatch(r"reviews, .* macro-F1 ([01]\.\d+) .*, accuracy ([01]\.\d+)", heading)
    assert shown and min(map(float, shown.groups())) > 0.5


def test_tables_of_lesson_01_can_be_trained_on(recipe, tmp_path):
    both = replace(recipe, dataset="multitask", max_rows=200)
    tables = {}
    for name, column in (("emotions", "labels"), ("virality", "label")):
        split, _ = labelled.read_set(name, both, [])
        tables[name] = {s: table[["text", column]] for s, table in split.items()}
    save_sets(tables, tmp_path / "tables")
    found, _ = labelled.read(replace(both, data=str(tmp_path / "tables"), max_rows=0))
    for name, parts in tables.items():
        for s, table in parts.items():
            assert found[name][s].texts == list(table["text"]), (name, s)
            assert found[name][s].labels.any()


@pytest.mark.parametrize("model", [[], ["--model", "mine"]])
@pytest.mark.usefixtures("no_model")
def test_data_are_read_before_a_model_is_loaded(capsys, tmp_path, monkeypatch, write_csv, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").touch()
    write_csv("virality", text=["x"])
    for line, message in (
        ("--data nofolder", "data folder 'nofolder' does not exist; give 'sample', 'hub' or"),
        ("--data file.csv", "data 'file.csv' is a file; expected 'sample', 'hub' or a folder"),
        ("--data . --dataset cedr", "no data set 'cedr' in '.'"),
        ("--data . --dataset virality", "column 'label' is missing for the set 'virality'"),
        ("--virality-file none.csv", "no such file: none.csv"),
        ("--dataset foo", "dataset 'foo' is not known; use emotions, cedr, virality, reviews"),
    ):
        assert main(["evaluate", *line.split(), *model]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_model")
def test_tables_of_the_shipped_models_tasks_are_read_before_it_is_built(capsys, write_csv):
    data = write_csv("emotions", text=["x"], label=["joy"])
    assert main(["evaluate", "--data", str(data)]) == 1
    assert "column 'labels' is missing for the set 'emotions'" in capsys.readouterr().err


def test_a_model_without_the_task_is_named_as_it_was_given(loaded, capsys, monkeypatch):
    monkeypatch.setattr(TwoWords, "tasks", {"moods": None}, raising=False)
    for model, named in (([], "the model that comes with viralbert"), (["--model", "a/b"], "a/b")):
        assert main(["evaluate", "--dataset", "virality", "--max-rows", "100", *model]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"viralbert: {named} has the tasks moods; expected virality")
