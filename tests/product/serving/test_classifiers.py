"""Every text classifier of the course is taken by `predict`, `serve` and `export`, and answers with
what it has."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import schemathesis
import torch
from scipy.special import expit, softmax
from starlette.testclient import TestClient

from tests.product.serving.classifiers import CLASSES, KINDS, TEXTS, close
from tests.product.serving.small_models import thresholds
from tests.product.two_words import rows, srt
from tests.timing import HANG_S
from viralbert import archives
from viralbert.cli import main
from viralbert.serving import server, service
from viralbert.serving.predictor import Predictor, Task, ViralBERT
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS, RUSSIAN_NAMES
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL, Thresholds
from viralbert_utils.models.storage import load_classifier

WITHOUT_MOMENTS = ["emotions", "virality", "cedr", "reviews"]
NOTE = (
    "virality, emotions: no thresholds are stored with the model, so a class counts from a "
    "probability of 0.5"
)
BOTH = [(kind, form) for kind in KINDS for form in ("torch", "onnx")]


@pytest.fixture(scope="module")
def expected(classifiers) -> dict[str, list[dict]]:
    """The answers of each kind, made from the model's logits by hand."""
    found = {}
    for kind in KINDS:
        loaded = load_classifier(classifiers / kind / "torch", "cpu")
        found[kind] = [by_hand(classifiers, kind, *loaded, text) for text in TEXTS]
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


# answers


@pytest.mark.parametrize(("kind", "form"), BOTH)
def test_the_answer_is_the_models_own(classifiers, expected, kind, form):
    found = [
        one.as_dict() for one in Predictor.load(classifiers / kind / form, "cpu").predict(TEXTS)
    ]
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
def test_the_command_predicts(classifiers, kind, form, capsys):
    assert (
        main(["predict", "--model", str(classifiers / kind / form), "--device", "cpu", *TEXTS[:3]])
        == 0
    )
    found = [
        one.as_dict() for one in Predictor.load(classifiers / kind / form, "cpu").predict(TEXTS[:3])
    ]
    assert rows(capsys.readouterr().out) == [
        {"text": text} | own for text, own in zip(TEXTS, found, strict=False)
    ]


@pytest.mark.parametrize(("kind", "form"), BOTH)
def test_the_service_answers_and_describes_what_it_answers(classifiers, kind, form):
    app = service.create_app(classifiers / kind / form, device="cpu")
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
    predicted = Predictor.load(classifiers / kind / form, "cpu").predict(TEXTS)
    for answer, own in zip(found["predictions"], predicted, strict=True):
        best = answer.pop("emotion", None)
        likeliest = answer.pop("class", None), answer.pop("probability", None)
        if kind == "virality":
            assert likeliest == (None, None)
        elif best is not None:
            assert likeliest == (best["name"], best["probability"])
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


def test_in_a_process_of_its_own_without_torch(classifiers):
    wanted = Predictor.load(classifiers / "reviews" / "onnx").predict(TEXTS[0]).as_dict()
    with server.running(classifiers / "reviews" / "onnx") as running:
        found = httpx.post(
            f"{running.url}/v1/predict", json={"text": TEXTS[0]}, timeout=HANG_S
        ).json()
        maps = Path(f"/proc/{running.process.pid}/maps")
        if maps.exists():
            assert not any(
                name in maps.read_text() for name in ("libtorch", "sklearn", "pandas", "pyarrow")
            )
    (best,) = wanted["reviews"]["labels"]
    likeliest = {"class": best["name"], "probability": best["probability"]}
    assert close(found["predictions"], [wanted | likeliest], 1e-6)


# thresholds that nobody has tuned


def test_thresholds_that_are_missing_are_told(classifiers, caplog, tmp_path):
    folder = classifiers / "two tasks without thresholds"
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
def test_moments_need_virality_and_emotions(classifiers, kind, tmp_path, capsys):
    reason = f"need a model with the tasks virality and emotions, found {KINDS[kind][0]}; lesson 06"
    model = str(classifiers / kind / "onnx")
    assert (
        main(
            [
                "moments",
                "--model",
                model,
                str(srt(tmp_path / "talk.srt")),
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 1
    )
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=reason):
        archives.load_scorer(model)
    with TestClient(service.create_app(model)) as client:
        for sent in (
            {"json": {"cues": [{"text": "Кот.", "start": 0}]}},
            {"files": {"file": ("a.srt", b"nothing")}},
        ):
            refused = client.post("/v1/moments", **sent)
            assert (refused.status_code, reason in refused.json()["detail"]) == (422, True)


def test_three_tasks_find_moments(classifiers, tmp_path):
    command = ["moments", str(srt(tmp_path / "talk.srt")), "-o", str(tmp_path / "out"), "--model"]
    assert main([*command, str(classifiers / "three tasks" / "onnx")]) == 0
    assert json.loads((tmp_path / "out" / "talk" / "moments.json").read_text(encoding="utf-8"))[
        "moments"
    ]
