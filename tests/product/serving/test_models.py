"""A service of several models, and of models with aims."""

import re
from pathlib import Path

import pytest
import schemathesis
from starlette.testclient import TestClient

from tests.product.serving.known import TEXTS, Known, Reviewer, cues, http_get, http_post
from tests.product.serving.small_models import thresholds
from viralbert import cli
from viralbert.serving import server, service
from viralbert.serving.names import named
from viralbert.serving.predictor import Predictor
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import EMOTIONS

FOLDERS = {"emotions": "a", "reviews": "b"}


@pytest.fixture
def two(monkeypatch):
    """A client of a service whose first model knows emotions and virality, the second reviews."""
    models = {"a": Known(), "b": Reviewer()}
    monkeypatch.setattr(Predictor, "load", lambda folder, device, precision: models[folder])
    with TestClient(service.create_app(FOLDERS), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def aimed(monkeypatch, bert):
    """A client of a service whose first model has aims."""
    with_aims = bert.with_aim("all", {"emotions": thresholds(EMOTIONS, 0.0)})
    models = {"a": with_aims.with_aim("none", {"emotions": thresholds(EMOTIONS, 1.0)}), "b": bert}
    monkeypatch.setattr(Predictor, "load", lambda folder, device, precision: models[folder])
    with TestClient(service.create_app({"aimed": "a", "plain": "b"})) as client:
        yield client


def asked(client, **question) -> dict:
    (found,) = client.post("/v1/predict", json={"text": TEXTS[0]} | question).json()["predictions"]
    return found


def test_a_request_chooses_a_model_and_the_first_one_answers_the_others(two):
    assert asked(two) == asked(two, model="emotions")
    assert asked(two)["class"] == "joy"
    found = asked(two, model="reviews")
    assert found["reviews"]["labels"][0]["name"] == found["class"] == "good"
    assert found["probability"] == found["reviews"]["probabilities"]["good"] == 0.7
    assert "viral_score" not in found
    response = two.post("/v1/predict", json={"text": TEXTS[0], "model": "reviews"})
    assert response.json()["note"] == "trained on one cat"


@pytest.mark.parametrize("asking", ["predict", "classes", "emotions", "moments"])
def test_a_model_that_is_not_there_is_refused_without_its_name(two, asking):
    if asking == "predict":
        response = two.post("/v1/predict", json={"text": "а", "model": "../secret"})
    elif asking == "moments":
        response = two.post("/v1/moments?model=../secret", json={"cues": cues()})
    else:
        response = two.get(f"/v1/{asking}?model=../secret")
    assert response.status_code == 422
    assert "expected one of emotions, reviews" in response.json()["detail"]
    assert "secret" not in response.text


def test_the_models_are_listed_with_tasks_classes_and_form(two):
    first, second = two.get("/v1/models").json()
    assert (first["name"], first["finds_moments"], first["form"]) == ("emotions", True, "torch")
    assert [task["task"] for task in first["tasks"]] == ["virality", "emotions"]
    assert first["tasks"] == two.get("/v1/classes").json()
    assert (second["name"], second["finds_moments"]) == ("reviews", False)
    assert [one["name"] for one in second["tasks"][0]["classes"]] == ["bad", "neutral", "good"]
    assert second["tasks"] == two.get("/v1/classes?model=reviews").json()
    assert second["note"] == "trained on one cat"
    assert first["aims"] == second["aims"] == []


def test_the_form_of_a_model_is_what_computes(folders):
    forms = {
        kind: Predictor.load(folders / kind, "cpu").form for kind in ("torch", "float", "int8")
    }
    assert forms == {"torch": "torch", "float": "onnx float32", "int8": "onnx int8"}


def test_exports_are_served_by_name_in_a_process_without_torch(exported, classifiers):
    other = classifiers / "reviews" / "onnx"
    given = [f"viral={exported}", f"reviews={other}"]
    with server.running(given) as running:
        listed = http_get(f"{running.url}/v1/models").json()
        assert [(one["name"], one["form"]) for one in listed] == [
            ("viral", "onnx float32"),
            ("reviews", "onnx float32"),
        ]
        question = {"text": TEXTS[0], "model": "reviews"}
        found = http_post(f"{running.url}/v1/predict", json=question).json()["predictions"][0]
        assert (
            found["class"]
            == Predictor.load(other).predict(TEXTS[0])["reviews"]["labels"][0]["name"]
        )
        maps = Path(f"/proc/{running.process.pid}/maps")
        if maps.exists():
            assert "onnxruntime" in maps.read_text()
            assert not re.search(r"libtorch|sklearn|pandas|pyarrow", maps.read_text())


def test_what_one_model_cannot_the_other_can(two):
    assert two.get("/v1/emotions").status_code == 200
    refused = two.get("/v1/emotions?model=reviews")
    assert refused.status_code == 422
    assert "model reviews: expected one that knows emotions, found reviews" in refused.text
    assert two.post("/v1/moments", json={"cues": cues()}).json()["moments"]
    refused = two.post("/v1/moments?model=reviews", json={"cues": cues()})
    assert refused.status_code == 422
    assert "found reviews" in refused.json()["detail"]


def test_the_answer_of_each_model_is_described(two):
    described = two.get("/openapi.json").json()
    assert "virality, emotions, reviews" in described["info"]["summary"]
    loaded = schemathesis.openapi.from_dict(described)
    for model in FOLDERS:
        response = two.post("/v1/predict", json={"text": TEXTS, "model": model})
        loaded["/v1/predict"]["POST"].validate_response(response)
    loaded["/v1/models"]["GET"].validate_response(two.get("/v1/models"))
    content = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    body = content["application/json"]
    assert body["schema"]["properties"]["model"]["enum"] == list(FOLDERS)
    assert [one["value"]["model"] for one in body["examples"].values()] == list(FOLDERS)


def test_it_is_ready_only_if_every_model_works(two, monkeypatch):
    assert two.get("/readyz").status_code == 200
    tried = []
    monkeypatch.setattr(
        service.Batcher,
        "is_working",
        property(lambda one: tried.append(one) or tried.index(one) == 0),
    )
    assert two.get("/readyz").status_code == 503
    assert len(tried) == 2


def test_a_request_chooses_an_aim(aimed, bert):
    assert len(asked(aimed, aim="all")["emotions"]) == len(EMOTIONS)
    assert asked(aimed, aim="none")["emotions"] == []
    usual = bert.predict(TEXTS[0])
    assert [one["name"] for one in asked(aimed)["emotions"]] == [one.name for one in usual.emotions]
    assert asked(aimed, aim="none")["probabilities"] == asked(aimed)["probabilities"]
    listed = {one["name"]: one["aims"] for one in aimed.get("/v1/models").json()}
    assert listed == {"aimed": ["all", "none"], "plain": []}
    shown = [one["threshold"] for one in aimed.get("/v1/emotions?aim=all").json()]
    assert shown == [0.0] * len(EMOTIONS)


def test_the_moments_of_an_aim_have_its_emotions(aimed):
    found = {
        aim: aimed.post(f"/v1/moments{aim}", json={"cues": cues()}).json()["moments"]
        for aim in ("", "?aim=all", "?aim=none")
    }
    assert found["?aim=all"][0]["emotions"]
    assert all(one["emotions"] == [] for one in found["?aim=none"])


@pytest.mark.parametrize("asking", ["predict", "classes", "moments"])
def test_an_aim_that_the_model_has_not_is_refused(aimed, asking):
    if asking == "predict":
        response = aimed.post("/v1/predict", json={"text": "а", "model": "plain", "aim": "all"})
    elif asking == "moments":
        response = aimed.post("/v1/moments?model=plain&aim=all", json={"cues": cues()})
    else:
        response = aimed.get("/v1/classes?model=plain&aim=all")
    assert response.status_code == 422
    assert response.json()["detail"].startswith("aim: expected one of model plain (it has none)")
    refused = aimed.get("/v1/classes?aim=secret")
    assert refused.status_code == 422
    assert "expected one of model aimed (all, none), found another" in refused.text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], {"default": ""}),
        (["models/a"], {"default": "models/a"}),
        (["a=models/a", "b=../b"], {"a": "models/a", "b": "../b"}),
        (["models/a", "b=models/b"], {"default": "models/a", "b": "models/b"}),
        (["own=", "b=x=y"], {"own": "", "b": "x=y"}),
        (["./a=b"], {"default": "./a=b"}),
        (["/tmp/lr=0.1/model"], {"default": "/tmp/lr=0.1/model"}),
    ],
)
def test_models_of_the_command_line(given, wanted):
    assert named(given) == wanted
    assert list(named(given)) == list(wanted), "the first one answers who names none"


def test_a_folder_with_an_equals_sign_is_one(tmp_path, monkeypatch):
    (tmp_path / "lr=0.1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named(["lr=0.1"]) == {"default": "lr=0.1"}


@pytest.mark.parametrize("given", [["a=x", "a=y"], ["x", "y"]])
def test_two_models_of_one_name_are_refused(given):
    with pytest.raises(DataError, match=r"different names, found (a|default) twice"):
        named(given)


@pytest.mark.parametrize(
    ("models", "told"), [({}, "several to serve, found none"), ({"а/б": "x"}, "name of a model")]
)
def test_a_service_needs_models_with_names(models, told):
    with pytest.raises(DataError, match=told):
        service.create_app(models)


def test_the_command_passes_the_models_on(monkeypatch):
    served = []
    monkeypatch.setattr(server, "serve", lambda *arguments: served.append(arguments[0]))
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    assert cli.main(["serve", "--model", "emotions=a", "--model", "reviews=b"]) == 0
    assert cli.main(["serve", "--model", "a"]) == 0
    assert served == [FOLDERS, {"default": "a"}]
