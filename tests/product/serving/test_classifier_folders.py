"""What the folder of a classifier says of it, and the device and precision that are asked for."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pandas as pd
import pytest

from tests.product.serving.classifiers import CALIBRATION, KINDS, REVIEWS, TEXTS, close
from tests.product.serving.small_models import make_encoder, make_tokenizer, thresholds
from tests.product.two_words import rows
from viralbert import archives, cli
from viralbert.cli import main
from viralbert.serving import onnx_model, server
from viralbert.serving.export import export
from viralbert.serving.onnx_model import OnnxModel
from viralbert.serving.predictor import Predictor
from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL
from viralbert_utils.lessons import columns, hybrid
from viralbert_utils.models.storage import save_classifier

# what a folder says


def test_folders_and_exports_say_task_and_problem(classifiers):
    for kind, tasks in KINDS.items():
        problem = SINGLE_LABEL if kind == "reviews" else MULTI_LABEL
        about = OnnxModel.load(classifiers / kind / "onnx").about
        assert list(about["tasks"]) == tasks
        said = [about["settings"]]
        if "without" not in kind:
            said.append(
                json.loads(
                    (classifiers / kind / "torch" / "classifier.json").read_text(encoding="utf-8")
                )
            )
        for settings in said:
            assert settings["problem_type"] == problem
            assert settings.get("task") == (tasks[0] if len(tasks) == 1 else None)


@pytest.mark.parametrize("kind", ["cedr", "reviews"])
def test_folders_of_before_are_read(classifiers, kind, tmp_path):
    """Without the two fields: with thresholds multi-label and named as they are, without them one
    of `classes`."""
    name = "cedr" if kind == "cedr" else "classes"
    wanted = Predictor.load(classifiers / kind / "torch").predict(TEXTS[0]).as_dict()[kind]
    own = Predictor.load(classifiers / kind / "torch")
    own.save(tmp_path / "torch") if own.thresholds else save_classifier(
        tmp_path / "torch", own.model, own.tokenizer, REVIEWS, max_length=24
    )
    file = tmp_path / "torch" / "classifier.json"
    plain = json.loads(file.read_text(encoding="utf-8"))
    plain = {key: value for key, value in plain.items() if key not in ("task", "problem_type")}
    file.write_text(json.dumps(plain), encoding="utf-8")
    (tmp_path / "torch" / "SHA256SUMS").unlink()
    found = Predictor.load(tmp_path / "torch").predict(TEXTS[0]).as_dict()
    assert close(found, {name: wanted})
    model = onnx.load(classifiers / kind / "onnx" / "model.onnx", load_external_data=False)
    about = OnnxModel.load(classifiers / kind / "onnx").about
    older = dict(about) | {"tasks": {"classes": about["tasks"][kind]}, "settings": plain}
    onnx.helper.set_model_props(model, {onnx_model.KEY: json.dumps(older)})
    (tmp_path / "onnx").mkdir()
    for part in ("tokenizer.json", "model.onnx.data"):
        (tmp_path / "onnx" / part).write_bytes((classifiers / kind / "onnx" / part).read_bytes())
    onnx.save(model, tmp_path / "onnx" / "model.onnx")
    assert close(Predictor.load(tmp_path / "onnx").predict(TEXTS[0]).as_dict(), {name: wanted})


def test_a_hybrid_needs_its_table(tmp_path, capsys):
    table = pd.DataFrame(
        {"title": TEXTS[:4], "length": [3.0, 9.0, 1.0, 4.0], "label": list("abab")}
    )
    preparation = columns.prepare(table, ["title"], ["length"], n_bins=2)
    model = hybrid.HybridClassifier(make_encoder(), 2, preparation.columns(table).shape[1]).eval()
    hybrid.Hybrid(model, make_tokenizer(), preparation, ["a", "b"], 40).save(tmp_path / "torch")
    assert main(["export", "--model", str(tmp_path / "torch"), "-o", str(tmp_path / "onnx")]) == 0
    for form in ("torch", "onnx"):
        for command in (["predict", "Кот.", "--model"], ["serve", "--port", "0", "--model"]):
            assert main([*command, str(tmp_path / form)]) == 1
            told = capsys.readouterr().err
            assert "hybrid: it needs a table beside each text" in told
            assert "Hybrid.load" in told


def test_models_that_do_not_fit_are_named(classifiers):
    reviews = Predictor.load(classifiers / "reviews" / "torch", "cpu")
    emotions = Predictor.load(classifiers / "emotions" / "torch", "cpu")
    cases = [
        (
            {"problem_type": "regression"},
            {},
            "'regression' is not known; expected single_label_classification or",
        ),
        ({"task": "text"}, {}, "text can be no name of a task"),
        (
            {"task": "virality"},
            {},
            r"virality is one class, viral or not .* found bad, neutral, good \(single_label",
        ),
        (
            {},
            {"thresholds": {"reviews": thresholds(REVIEWS, 0.5)}},
            "thresholds of reviews, where .* most probable",
        ),
        ({}, {"calibration": CALIBRATION}, "calibration of virality, where the model has reviews"),
    ]
    for settings, options, reason in cases:
        with pytest.raises(DataError, match=reason):
            replace(reviews, settings={**reviews.settings, **settings}, **options)
    with pytest.raises(
        DataError, match="thresholds of joy, where the model has the tasks emotions"
    ):
        replace(emotions, thresholds={"joy": thresholds(["joy"], 0.5)})


# devices and precision


def test_device_and_precision_are_passed_on(classifiers, tmp_path, capsys, monkeypatch):
    model = str(classifiers / "two tasks" / "torch")
    exact, near = (
        np.array(
            list(Predictor.load(model, "cpu", precision).predict(TEXTS[0]).probabilities.values())
        )
        for precision in ("auto", "bfloat16")
    )
    assert 0 < np.abs(exact - near).max() < 0.03
    assert (
        main(["predict", "--model", model, "--device", "cpu", "--precision", "bfloat16", TEXTS[0]])
        == 0
    )
    (row,) = rows(capsys.readouterr().out)
    assert list(row["probabilities"].values()) == pytest.approx(near, abs=1e-9)
    asked = []
    monkeypatch.setattr(server.uvicorn, "Config", lambda *_, **__: pytest.fail("it starts"))
    monkeypatch.setattr(Predictor, "load", lambda *given: asked.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["serve", "--model", model, "--device", "cuda:1", "--precision", "float16"])
    assert asked == [(model, "cuda:1", "float16")]
    for name in devices.PRECISIONS:
        assert (
            cli._parser().parse_args(["predict", "--precision", name, TEXTS[0]]).precision == name
        )
    with pytest.raises(SystemExit):
        main(["predict", "--precision", "double", TEXTS[0]])


def test_a_device_that_is_not_there_is_named(classifiers, capsys):
    command = ["predict", TEXTS[0], "--device", "cuda:99", "--model"]
    assert main([*command, str(classifiers / "cedr" / "torch")]) == 1
    assert "cuda:99" in capsys.readouterr().err
    assert main([*command, str(classifiers / "cedr" / "onnx")]) == 1
    assert (
        "is an exported model: it computes on the CPU in float32, found device cuda:99"
        in capsys.readouterr().err
    )


def test_archives_compute_on_the_cpu_the_same_everywhere(
    classifiers, tmp_path, capsys, monkeypatch
):
    model = str(classifiers / "two tasks" / "torch")
    command = [
        "moments",
        str(tmp_path),
        "-o",
        str(tmp_path / "out"),
        "--model",
        model,
        "--engine",
        "local",
    ]
    assert main([*command, "--device", "cuda"]) == 1
    assert "--engine computes on the CPU, a process for each processor" in capsys.readouterr().err
    exact = archives.load_scorer(model)(TEXTS).emotions
    monkeypatch.setenv(devices.PRECISION, "bfloat16")
    assert np.array_equal(archives.load_scorer(model)(TEXTS).emotions, exact)
    assert not np.array_equal(archives.load_scorer(model, "bfloat16")(TEXTS).emotions, exact)


def test_an_export_is_made_in_float32_whatever_is_asked_of_training(
    classifiers, tmp_path, monkeypatch
):
    monkeypatch.setenv(devices.PRECISION, "bfloat16")
    export(classifiers / "virality" / "torch", tmp_path / "new", texts=TEXTS)
    assert OnnxModel.load(tmp_path / "new").about["difference"] < 1e-5
