"""Thresholds for a purpose: tuned, stored with a model, exported with it, chosen by name."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tests.product.serving.classifiers import pooled
from tests.product.serving.small_models import MANY, TEXTS, make_tokenizer, thresholds
from tests.product.two_words import rows
from viralbert.cli import main
from viralbert.serving import aims, export
from viralbert.serving.onnx_model import OnnxModel
from viralbert.serving.predictor import Predictor
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data import sources
from viralbert_utils.data.emotions import EMOTIONS, parse_labels
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL, Thresholds, decide

EVERY, NEVER = thresholds(EMOTIONS, 0.0), thresholds(EMOTIONS, 1.0)


@pytest.fixture(scope="module")
def aimed(bert) -> Predictor:
    return bert.with_aim("all", {"emotions": EVERY}).with_aim("none", {"emotions": NEVER})


def names(prediction) -> set[str]:
    return {label.name for label in prediction.emotions}


def test_an_aim_decides_otherwise_from_the_same_probabilities(bert, aimed):
    usual, everything, nothing = (
        one.predict(TEXTS) for one in (bert, aimed.for_aim("all"), aimed.for_aim("none"))
    )
    assert [one.probabilities for one in usual] == [one.probabilities for one in everything]
    assert all(names(one) == set(EMOTIONS) for one in everything)
    assert all(names(one) == set() for one in nothing)
    assert any(names(one) not in (set(), set(EMOTIONS)) for one in usual)
    assert [one.is_viral for one in usual] == [one.is_viral for one in nothing], "no aim of it"
    assert aimed.predict(TEXTS) == usual, "an aim that nobody has chosen changes nothing"


@pytest.mark.parametrize("aim", ["all", "none"])
def test_deciding_afterwards_is_deciding_at_once(bert, aimed, aim):
    texts = [*TEXTS, "", "😂"]
    assert aimed.for_aim(aim).decide(bert.predict(texts)) == aimed.for_aim(aim).predict(texts)
    assert aimed.decide(aimed.for_aim(aim).predict(texts)) == bert.predict(texts)
    assert aimed.decide([]) == []


def test_a_task_of_another_name_is_decided_afterwards_too():
    classes = ("tea", "coffee", "milk")
    about = {"task": "drinks", "problem_type": MULTI_LABEL, "names": list(classes)}
    model = Predictor(pooled(classes), make_tokenizer(), about).with_aim(
        "thirst", {"drinks": thresholds(classes, 0.0)}
    )
    (found,) = model.for_aim("thirst").decide(model.predict(TEXTS[:1]))
    assert {label["name"] for label in found["drinks"]["labels"]} == set(classes)


def test_aims_are_saved_beside_the_thresholds_and_exported(aimed, folders, tmp_path, monkeypatch):
    aimed.save(tmp_path / "torch")
    assert (tmp_path / "torch/aims/all/emotions.json").is_file()
    read = Predictor.load(tmp_path / "torch", "cpu")
    assert read.aims == aimed.aims
    assert read.thresholds == aimed.thresholds
    # Tracing takes seconds: the graph that stands in the export of the same model is the same.
    monkeypatch.setattr(export, "_graph", lambda *_: onnx.load(folders / "float" / "model.onnx"))
    export.export(tmp_path / "torch", tmp_path / "onnx", texts=MANY)
    exported = Predictor.load(tmp_path / "onnx")
    assert exported.aims == aimed.aims
    assert names(exported.for_aim("all").predict(TEXTS[0])) == set(EMOTIONS)


def test_an_export_of_before_has_no_aims(folders, monkeypatch):
    exported = OnnxModel.load(folders / "float")
    assert exported.about["aims"] == {}
    del exported.about["aims"]
    monkeypatch.setattr(OnnxModel, "load", lambda path: exported)
    model = Predictor.load(folders / "float")
    with pytest.raises(DataError, match=r"aim .all.: expected one .*it has none"):
        model.for_aim("all")


def test_the_command_decides_by_an_aim(aimed, tmp_path, capsys, caplog):
    aimed.save(tmp_path / "model")
    command = ["predict", "--model", str(tmp_path / "model"), "--device", "cpu", TEXTS[0]]
    with caplog.at_level(logging.ERROR):
        assert main([*command, "--aim", "all"]) == 0
        (found,) = rows(capsys.readouterr().out)
        assert len(found["emotions"]) == len(EMOTIONS)
        assert main([*command, "--aim", "moderation"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "'moderation'" in said.err
    assert "all, none" in said.err


@pytest.mark.parametrize(
    ("aim", "wanted", "told"),
    [
        ("../up", {"emotions": EVERY}, "expected the name of an aim"),
        ("", {"emotions": EVERY}, "expected the name of an aim"),
        ("joy", {}, "aim joy: expected thresholds of a task .*found none"),
        ("joy", {"cedr": EVERY}, "aim joy: expected thresholds .*emotions, virality.*found cedr"),
        ("joy", {"emotions": thresholds(EMOTIONS[::-1], 0.5)}, "class '.*' was expected"),
    ],
)
def test_an_aim_that_does_not_belong_to_the_model_is_refused(bert, aim, wanted, told):
    with pytest.raises(DataError, match=told):
        bert.with_aim(aim, wanted)


def test_a_model_whose_answer_is_the_likeliest_class_has_no_aims():
    about = {"task": "reviews", "problem_type": SINGLE_LABEL, "names": ["bad", "good"]}
    model = Predictor(pooled(("bad", "good")), make_tokenizer(), about)
    with pytest.raises(DataError, match="has none, it answers the likeliest class"):
        model.with_aim("kind", {"reviews": thresholds(["bad", "good"], 0.5)})


def tuning_rows(n: int = 400) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Three classes whose scores are right more often than not."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 3)) < 0.2).astype(int)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    return ("anger", "joy", "calm"), labels, scores


def test_a_goal_is_reached_on_the_tuning_rows_and_other_classes_keep_their_rule():
    classes, labels, scores = tuning_rows()
    found = aims.tune(classes, labels, scores, {"anger": "recall 0.95", "joy": "precision 0.9"})
    usual = Thresholds.tune(classes, labels, scores)
    yes = decide(scores, np.array(found.values))
    right = (labels * yes).sum(axis=0)
    assert right[0] / labels[:, 0].sum() >= 0.95
    assert right[1] / yes[:, 1].sum() >= 0.9
    assert found.values[2] == usual.values[2]
    assert found.values[0] < usual.values[0], "who must not miss it says yes more often"
    assert found.values[1] > usual.values[1]
    assert found.method == "shrunk; anger recall 0.95, joy precision 0.9"
    assert (found.n_rows, found.positives, found.sha256) == (400, usual.positives, usual.sha256)
    assert found.gain < usual.gain, "an aim has its price in macro-F1"


def test_the_example_of_the_manual(bert, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "aims" in code)
    rows = sources.load("emotions").splits["all"].head(60)
    given = SimpleNamespace(splits={"validation": rows})
    monkeypatch.setattr(sources, "load", lambda name, source: given)
    monkeypatch.setattr(Predictor, "load", lambda folder: bert)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "predict.md", "exec"), {})
    found = Thresholds.load(tmp_path / "models/emotions/model/aims/moderation/emotions.json")
    assert found.names == EMOTIONS
    assert found.n_rows == 60
    assert found.positives[EMOTIONS.index("joy")] == sum(
        EMOTIONS.index("joy") in parse_labels(labels) for labels in rows["labels"]
    )
    assert "anger recall 0.9" in found.method
    given.splits = {"all": rows}
    with pytest.raises(SystemExit, match=r"expected emotions/validation\.csv to tune the aim on"):
        exec(compile(example, "predict.md", "exec"), {})


@pytest.mark.parametrize(
    ("goals", "told"),
    [
        ({}, "found no goal at all"),
        ({"rage": "recall 0.9"}, "anger, joy, calm; found rage"),
        ({"anger": "f1 0.9"}, "goal of anger: .*found 'f1 0.9'"),
        ({"anger": "recall"}, "goal of anger: .*'recall 0.9', found 'recall'"),
        ({"anger": "recall 90"}, "goal of anger: .*found 'recall 90'"),
        ({"anger": "precision nan"}, "goal of anger: .*found 'precision nan'"),
    ],
)
def test_a_goal_that_is_none_is_refused(goals, told):
    with pytest.raises(DataError, match=told):
        aims.tune(*tuning_rows(20), goals)
