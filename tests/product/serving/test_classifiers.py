"""Every text classifier of the course is taken by `predict`, `serve` and `export`, and answers with
what it has."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
import schemathesis
import torch
from scipy.special import expit, softmax
from starlette.testclient import TestClient

from tests.product.serving.test_export import make_encoder
from tests.product.serving.test_predictor import make_tokenizer, thresholds
from tests.product.test_cli import rows, srt
from tests.product.test_train import encoder  # noqa: F401 - a fixture
from tests.timing import HANG_S
from viralbert import archives, cli
from viralbert.cli import main
from viralbert.serving import onnx_model, server, service
from viralbert.serving.export import export
from viralbert.serving.onnx_model import OnnxModel
from viralbert.serving.predictor import Predictor, Task, ViralBERT
from viralbert_utils.base import devices, tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS, RUSSIAN_NAMES
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL, Thresholds
from viralbert_utils.lessons import columns, hybrid
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.storage import load_classifier, save_classifier

TEXTS = [
    "Кот открыл дверь сам.",
    "Дождь.",
    "Мы весь день красили забор и никому об этом не сказали!",
    "",
    "Ура 🎉",
]
REVIEWS = ["bad", "neutral", "good"]
CLASSES = {
    "virality": ("viral",),
    "emotions": EMOTIONS,
    "cedr": CEDR_CLASSES,
    "reviews": tuple(REVIEWS),
}
# What each model knows, in the order of its outputs.
KINDS = {
    "two tasks": ["emotions", "virality"],
    "two tasks without thresholds": ["virality", "emotions"],
    "emotions": ["emotions"],
    "virality": ["virality"],
    "cedr": ["cedr"],
    "reviews": ["reviews"],
    "three tasks": ["virality", "emotions", "cedr"],
}
WITHOUT_MOMENTS = ["emotions", "virality", "cedr", "reviews"]
CALIBRATION = Calibration(np.array([0.7]), np.array([-0.2]))
NOTE = (
    "virality, emotions: no thresholds are stored with the model, so a class counts from a "
    "probability of 0.5"
)
BOTH = [(kind, form) for kind in KINDS for form in ("torch", "onnx")]


def pooled(names) -> PooledClassifier:
    model = PooledClassifier(make_encoder(), len(names), "mean").eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


def several(tasks) -> MultiTaskClassifier:
    heads = {task: Head(CLASSES[task], (8,), (0.1,)) for task in tasks}
    model = MultiTaskClassifier(make_encoder(), heads, "mean").eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head[-1].weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def folders(encoder, tmp_path_factory) -> Path:  # noqa: F811
    """`<kind>/torch` and `<kind>/onnx`, each written as the course writes it."""
    root = tmp_path_factory.mktemp("classifiers")
    tokenizer, about = make_tokenizer(), {"max_length": 24, "head_share": 0.5}
    for kind in ("two tasks", "three tasks"):
        own = {task: thresholds(CLASSES[task], 0.4 + 0.1 * k) for k, task in enumerate(KINDS[kind])}
        Predictor(several(KINDS[kind]), tokenizer, about, own, CALIBRATION).save(
            root / kind / "torch"
        )
    kind = "two tasks without thresholds"  # as lesson 03
    save_classifier(root / kind / "torch", several(KINDS[kind]), tokenizer, **about)
    for task in ("emotions", "virality"):
        own = {"task": task, "problem_type": MULTI_LABEL, "names": list(CLASSES[task])} | about
        Predictor(
            pooled(CLASSES[task]), tokenizer, own, {task: thresholds(CLASSES[task], 0.45)}
        ).save(root / task / "torch")
    own = {"task": "reviews", "problem_type": SINGLE_LABEL} | about  # as lesson 02
    save_classifier(root / "reviews" / "torch", pooled(REVIEWS), tokenizer, REVIEWS, **own)
    command = [
        "train",
        "--dataset",
        "cedr",
        "--max-rows",
        "120",
        "--epochs",
        "1",
        "--encoder",
        encoder,
        "--max-length",
        "24",
        "--lr",
        "0.001",
        "--output",
        str(root / "trained"),
    ]
    assert main(command) == 0
    (root / "cedr").mkdir()
    (root / "trained" / "model").rename(root / "cedr" / "torch")
    for kind in KINDS:
        export(root / kind / "torch", root / kind / "onnx", texts=TEXTS)
    return root


@pytest.fixture(scope="module")
def expected(folders) -> dict[str, list[dict]]:
    """The answers of each kind, made from the model's logits by hand."""
    found = {}
    for kind in KINDS:
        loaded = load_classifier(folders / kind / "torch", "cpu")
        found[kind] = [by_hand(folders, kind, *loaded, text) for text in TEXTS]
    return found


def by_hand(folder: Path, kind: str, model, tokenizer, settings, text: str) -> dict:
    (ids,) = tokens.encode(tokenizer, [text], settings["max_length"], settings["head_share"])
    with torch.inference_mode():
        logits = (
            model(torch.tensor([ids]), torch.ones((1, len(ids)), dtype=torch.long))[0]
            .double()
            .numpy()
        )
    found: dict = {}
    parts = np.split(logits, np.cumsum([len(CLASSES[task]) for task in KINDS[kind]])[:-1])
    for task, own in zip(KINDS[kind], parts, strict=True):
        names, file = CLASSES[task], folder / kind / "torch" / "thresholds" / f"{task}.json"
        russian = (
            {}
            if task == "reviews"
            else RUSSIAN_NAMES | {"viral": "виральный", "no_emotion": "ни одной из эмоций"}
        )
        cut = np.array(Thresholds.load(file).values) if file.is_file() else np.full(len(names), 0.5)
        p = softmax(own) if task == "reviews" else expit(own)
        if task == "virality" and kind in ("two tasks", "three tasks"):
            p = expit(0.7 * own - 0.2)
        p = p if text else 0 * p
        reached = p == p.max() if task == "reviews" else p >= cut
        labels = [
            {"name": names[k], "russian": russian.get(names[k], names[k]), "probability": p[k]}
            for k in np.argsort(-p)
            if reached[k] and text
        ]
        if task == "virality":
            found |= {"viral_score": p[0], "is_viral": bool(reached[0] and text)}
        elif task == "emotions":
            found |= {"emotions": labels, "probabilities": dict(zip(names, p, strict=True))}
        else:
            found[task] = {"labels": labels, "probabilities": dict(zip(names, p, strict=True))}
    return found


def close(found, wanted, off: float = 1e-5) -> bool:
    """Whether two answers are the same, numbers nearly so."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(
            close(found[k], wanted[k], off) for k in wanted
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted, [off] * len(wanted)))
    return abs(found - wanted) < off if isinstance(wanted, float) else found == wanted


# answers


@pytest.mark.parametrize(("kind", "form"), BOTH)
def test_the_answer_is_the_models_own(folders, expected, kind, form):
    found = [one.as_dict() for one in Predictor.load(folders / kind / form, "cpu").predict(TEXTS)]
    assert close(found, expected[kind])
    fields = {"virality": ["viral_score", "is_viral"], "emotions": ["emotions", "probabilities"]}
    assert list(found[0]) == [
        name
        for task in ("virality", "emotions", "cedr", "reviews")
        if task in KINDS[kind]
        for name in fields.get(task, [task])
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(("kind", "form"), BOTH)
def test_the_command_predicts(folders, kind, form, capsys):
    assert (
        main(["predict", "--model", str(folders / kind / form), "--device", "cpu", *TEXTS[:3]]) == 0
    )
    found = [
        one.as_dict() for one in Predictor.load(folders / kind / form, "cpu").predict(TEXTS[:3])
    ]
    assert rows(capsys.readouterr().out) == [
        {"text": text} | own for text, own in zip(TEXTS, found, strict=False)
    ]


@pytest.mark.parametrize(("kind", "form"), BOTH)
def test_the_service_answers_and_describes_what_it_answers(folders, kind, form):
    app = service.create_app(folders / kind / form, device="cpu")
    with TestClient(app) as client:
        response = client.post("/v1/predict", json={"text": TEXTS})
        classes = client.get("/v1/classes")
        described = client.get("/openapi.json").json()
        one = client.get("/v1/emotions")
        loaded = schemathesis.openapi.from_dict(described)
        loaded["/v1/predict"]["POST"].validate_response(response)
        loaded["/v1/classes"]["GET"].validate_response(classes)
    found = response.json()
    assert found.get("note", "").startswith(NOTE if "without" in kind else "")
    assert ("note" in found) == ("without" in kind)
    predicted = Predictor.load(folders / kind / form, "cpu").predict(TEXTS)
    for answer, own in zip(found["predictions"], predicted, strict=True):
        best = answer.pop("emotion", None)
        assert answer == json.loads(json.dumps(own.as_dict()))
        if own.probabilities is not None:
            assert (best is None) == (own.probabilities["joy"] == 0)
            assert best is None or best["probability"] == max(own.probabilities.values())
    assert [task["task"] for task in classes.json()] == KINDS[kind]
    for task in classes.json():
        assert tuple(c["name"] for c in task["classes"]) == CLASSES[task["task"]]
        assert task["problem_type"] == (SINGLE_LABEL if task["task"] == "reviews" else MULTI_LABEL)
        assert all(c["threshold"] is None for c in task["classes"]) == (task["task"] == "reviews")
        assert bool(task["note"]) == ("without" in kind)
    assert (
        ("emotions" in KINDS[kind])
        == ("/v1/emotions" in described["paths"])
        == (one.status_code == 200)
    )
    assert ("/v1/moments" in described["paths"]) == (kind not in WITHOUT_MOMENTS)


def test_a_class_has_its_russian_name_where_it_is_an_emotion():
    cedr = {
        "joy": "радость",
        "sadness": "грусть",
        "surprise": "удивление",
        "fear": "страх",
        "anger": "злость",
        "no_emotion": "ни одной из эмоций",
    }
    assert dict(zip(CEDR_CLASSES, Task(CEDR_CLASSES, None).russian, strict=True)) == cedr
    assert Task(("viral",), None).russian == ("виральный",)
    assert Task(("bad", "neutral", "good"), None).russian == ("bad", "neutral", "good"), (
        "a neutral review has feelings"
    )


def test_exactly_one_label_even_if_two_are_equal_and_no_nan():
    own = Task(("a", "b", "c"), None)
    (tied,) = own.answers(np.array([[0.4, 0.4, 0.2]]))
    assert [label.name for label in tied.labels] == ["a"]
    with pytest.raises(DataError, match="is nan"):
        list(own.answers(np.array([[np.nan, 0.5, 0.5]])))


def test_in_a_process_of_its_own_without_torch(folders):
    wanted = Predictor.load(folders / "reviews" / "onnx").predict(TEXTS[0]).as_dict()
    with server.running(folders / "reviews" / "onnx") as running:
        found = httpx.post(
            f"{running.url}/v1/predict", json={"text": TEXTS[0]}, timeout=HANG_S
        ).json()
        maps = Path(f"/proc/{running.process.pid}/maps")
        if maps.exists():
            assert not any(
                name in maps.read_text() for name in ("libtorch", "sklearn", "pandas", "pyarrow")
            )
    assert close(found["predictions"], [wanted], 1e-6)


# thresholds that nobody has tuned


def test_thresholds_that_are_missing_are_told(folders, caplog, tmp_path):
    folder = folders / "two tasks without thresholds"
    told = subprocess.run(
        [sys.executable, "-m", "viralbert.cli", "predict", "--model", folder / "onnx", TEXTS[0]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{NOTE} (see lesson 04)" in told.stderr
    assert "is_viral" in json.loads(told.stdout)
    assert (
        main(
            [
                "moments",
                "--model",
                str(folder / "torch"),
                str(srt(tmp_path / "a.srt")),
                "-o",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert NOTE in caplog.text
    caplog.clear()
    bert = ViralBERT.load(folder / "torch")
    assert (bert.virality.values, set(bert.emotions.values)) == ((0.5,), {0.5})
    assert bert.note in caplog.text
    bert.save(tmp_path / "again")
    assert not (tmp_path / "again" / "thresholds").exists()
    assert ViralBERT.load(tmp_path / "again").predict(TEXTS) == bert.predict(TEXTS)
    one = replace(bert, thresholds={"virality": thresholds(["viral"], 0.3)})
    assert one.note.startswith("emotions: no thresholds")
    assert (
        replace(one, thresholds=one.thresholds | {"emotions": thresholds(EMOTIONS, 0.3)}).note == ""
    )
    cues = [
        {"text": f"Слово {k} и дело {k}.", "start": 4.0 * k, "end": 4.0 * k + 3.8}
        for k in range(20)
    ]
    with TestClient(service.create_app(folder / "onnx")) as client:
        assert NOTE in client.post("/v1/moments", json={"cues": cues}).json()["note"]


# moments


@pytest.mark.parametrize("kind", WITHOUT_MOMENTS)
def test_moments_need_virality_and_emotions(folders, kind, tmp_path, capsys):
    reason = f"need a model with the tasks virality and emotions, found {KINDS[kind][0]}; lesson 06"
    model = str(folders / kind / "onnx")
    assert (
        main(
            [
                "moments",
                "--model",
                model,
                str(tmp_path / "missing.srt"),
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 1
    )
    told = capsys.readouterr().err
    assert reason in told
    assert "missing.srt" not in told, "the model is looked at first"
    with pytest.raises(DataError, match=reason):
        archives.load_scorer(model)
    with TestClient(service.create_app(model)) as client:
        for sent in (
            {"json": {"cues": [{"text": "Кот.", "start": 0}]}},
            {"files": {"file": ("a.srt", b"nothing")}},
        ):
            refused = client.post("/v1/moments", **sent)
            assert (refused.status_code, reason in refused.json()["detail"]) == (422, True)


def test_three_tasks_find_moments(folders, tmp_path):
    command = ["moments", str(srt(tmp_path / "talk.srt")), "-o", str(tmp_path / "out"), "--model"]
    assert main([*command, str(folders / "three tasks" / "onnx")]) == 0
    assert json.loads((tmp_path / "out" / "talk" / "moments.json").read_text(encoding="utf-8"))[
        "moments"
    ]


# what a folder says


def test_folders_and_exports_say_task_and_problem(folders):
    for kind, tasks in KINDS.items():
        problem = SINGLE_LABEL if kind == "reviews" else MULTI_LABEL
        about = OnnxModel.load(folders / kind / "onnx").about
        assert list(about["tasks"]) == tasks
        said = [about["settings"]]
        if "without" not in kind:
            said.append(
                json.loads(
                    (folders / kind / "torch" / "classifier.json").read_text(encoding="utf-8")
                )
            )
        for settings in said:
            assert settings["problem_type"] == problem
            assert settings.get("task") == (tasks[0] if len(tasks) == 1 else None)


@pytest.mark.parametrize("kind", ["cedr", "reviews"])
def test_folders_of_before_are_read(folders, kind, tmp_path):
    """Without the two fields: with thresholds multi-label and named as they are, without them one
    of `classes`."""
    name = "cedr" if kind == "cedr" else "classes"
    wanted = Predictor.load(folders / kind / "torch").predict(TEXTS[0]).as_dict()[kind]
    own = Predictor.load(folders / kind / "torch")
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
    model = onnx.load(folders / kind / "onnx" / "model.onnx", load_external_data=False)
    about = OnnxModel.load(folders / kind / "onnx").about
    older = dict(about) | {"tasks": {"classes": about["tasks"][kind]}, "settings": plain}
    onnx.helper.set_model_props(model, {onnx_model.KEY: json.dumps(older)})
    (tmp_path / "onnx").mkdir()
    for part in ("tokenizer.json", "model.onnx.data"):
        (tmp_path / "onnx" / part).write_bytes((folders / kind / "onnx" / part).read_bytes())
    onnx.save(model, tmp_path / "onnx" / "model.onnx")
    assert close(Predictor.load(tmp_path / "onnx").predict(TEXTS[0]).as_dict(), {name: wanted})


def test_a_hybrid_needs_its_table(tmp_path, capsys):
    table = pd.DataFrame(
        {"title": TEXTS[:4], "length": [3.0, 9.0, 1.0, 4.0], "label": list("abab")}
    )
    preparation = columns.prepare(table, ["title"], ["length"], n_bins=2)
    model = hybrid.HybridClassifier(make_encoder(), 2, preparation.columns(table).shape[1]).eval()
    hybrid.Hybrid(model, make_tokenizer(), preparation, ["a", "b"], 40).save(tmp_path / "torch")
    assert main(["export", str(tmp_path / "torch"), "-o", str(tmp_path / "onnx")]) == 0
    for form in ("torch", "onnx"):
        for command in (["predict", "Кот.", "--model"], ["serve", "--port", "0", "--model"]):
            assert main([*command, str(tmp_path / form)]) == 1
            told = capsys.readouterr().err
            assert "hybrid: it needs a table beside each text" in told
            assert "Hybrid.load" in told


def test_models_that_do_not_fit_are_named(folders):
    reviews = Predictor.load(folders / "reviews" / "torch", "cpu")
    emotions = Predictor.load(folders / "emotions" / "torch", "cpu")
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


def test_device_and_precision_are_passed_on(folders, tmp_path, capsys, monkeypatch):
    model = str(folders / "two tasks" / "torch")
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


def test_a_device_that_is_not_there_is_named(folders, capsys):
    command = ["predict", TEXTS[0], "--device", "cuda:99", "--model"]
    assert main([*command, str(folders / "cedr" / "torch")]) == 1
    assert "cuda:99" in capsys.readouterr().err
    assert main([*command, str(folders / "cedr" / "onnx")]) == 1
    assert (
        "is an exported model: it computes on the CPU in float32, found device cuda:99"
        in capsys.readouterr().err
    )


def test_archives_compute_on_the_cpu_the_same_everywhere(folders, tmp_path, capsys, monkeypatch):
    model = str(folders / "two tasks" / "torch")
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


def test_an_export_is_made_in_float32_whatever_is_asked_of_training(folders, tmp_path, monkeypatch):
    monkeypatch.setenv(devices.PRECISION, "bfloat16")
    export(folders / "virality" / "torch", tmp_path / "new", texts=TEXTS)
    assert OnnxModel.load(tmp_path / "new").about["difference"] < 1e-5
