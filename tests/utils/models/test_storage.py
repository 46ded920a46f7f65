"""Saved models and exports: who may read them, interrupted, damaged, absurd."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests import tiny
from tests.utils.base.whole import Interrupted, check_modes, check_old, old_folder
from viralbert.serving import export
from viralbert.serving.onnx_model import MODEL, OnnxModel
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.base import files
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import sources
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.encoders import embedded
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.evaluation.thresholds import Thresholds
from viralbert_utils.lessons import columns, hybrid
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.storage import load_classifier, save_classifier

TEXTS = ["а а", "а", "б а", "б"] * 4


def encoder():
    return tiny.bert()


@pytest.fixture
def pooled():
    return PooledClassifier(encoder(), 2).eval()


@pytest.fixture
def bert(tiny_tokenizer):
    heads = {"virality": Head(("viral",)), "emotions": Head(EMOTIONS)}
    model = MultiTaskClassifier(encoder(), heads, "mean", train_embeddings=False).eval()
    kept = {
        task: Thresholds(
            head.names, (0.5,) * len(head.names), "one", 10, (5,) * len(head.names), 0.0, "0"
        )
        for task, head in heads.items()
    }
    return ViralBERT(
        model,
        tiny_tokenizer,
        {"max_length": 16},
        kept,
        Calibration(np.array([0.7]), np.array([-0.2])),
    )


@pytest.fixture(scope="module")
def graph():
    """Traced once, which takes seconds."""
    heads = {"virality": Head(("viral",)), "emotions": Head(EMOTIONS)}
    torch.manual_seed(0)
    model = MultiTaskClassifier(encoder(), heads, "mean", train_embeddings=False).eval()
    return model, export._graph(model).SerializeToString()


# who may read them


def test_a_saved_classifier_is_readable(pooled, tiny_tokenizer, tmp_path, umask):
    for _ in range(2):  # new, and in the place of an old one
        save_classifier(tmp_path / "model", pooled, tiny_tokenizer, ["a", "b"])
        check_modes(tmp_path / "model", umask)


def test_a_saved_predictor_is_readable(bert, tmp_path, umask):
    bert.save(tmp_path / "model")
    check_modes(tmp_path / "model", umask)
    assert (tmp_path / "model" / "thresholds" / "emotions.json").is_file()


def test_a_saved_hybrid_is_readable(tiny_tokenizer, tmp_path, umask):
    rows = pd.DataFrame({"title": TEXTS, "views": range(len(TEXTS))})
    prepared = columns.prepare(rows, ["title"], ["views"], n_bins=2)
    model = hybrid.HybridClassifier(encoder(), 2, prepared.columns(rows).shape[1]).eval()
    hybrid.Hybrid(model, tiny_tokenizer, prepared, ["a", "b"], 16).save(tmp_path / "model")
    check_modes(tmp_path / "model", umask)


def test_an_export_is_readable(graph, tiny_tokenizer, tmp_path, umask, monkeypatch):
    import onnx

    model, traced = graph
    monkeypatch.setattr(export, "_graph", lambda *_: onnx.ModelProto.FromString(traced))
    save_classifier(tmp_path / "model", model, tiny_tokenizer, max_length=16)
    for int8 in (False, True):
        export.export(tmp_path / "model", tmp_path / "exported", int8=int8, texts=TEXTS)
        check_modes(tmp_path / "exported", umask)
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        files.SUMS,
    }


def test_the_embedded_encoder_is_readable(pooled, tmp_path, umask, monkeypatch):
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        embedded, "build", lambda recipe, folder: pooled.encoder.save_pretrained(folder)
    )
    check_modes(embedded.embedded_folder(), umask)


# what an interruption leaves


def interrupt(*_: object, **__: object) -> None:
    raise Interrupted


def test_an_interrupted_save_leaves_the_old_model(
    pooled, bert, graph, tiny_tokenizer, tmp_path, monkeypatch
):
    folder = old_folder(tmp_path, "classifier.json")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(type(tiny_tokenizer), "save_pretrained", interrupt)
        save_classifier(folder, pooled, tiny_tokenizer, ["a", "b"])
    check_old(folder, "classifier.json")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Thresholds, "save", interrupt)
        bert.save(folder)
    check_old(folder, "classifier.json")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(pd.DataFrame, "to_parquet", interrupt)
        sources.save_sets({"emotions": {"train": pd.DataFrame({"text": ["да"]})}}, folder)
    check_old(folder, "classifier.json")


def test_an_interrupted_export_leaves_the_old_one(graph, tiny_tokenizer, tmp_path, monkeypatch):
    save_classifier(tmp_path / "model", graph[0], tiny_tokenizer, max_length=16)
    folder = old_folder(tmp_path, MODEL)
    monkeypatch.setattr(export, "_graph", interrupt)
    with pytest.raises(Interrupted):
        export.export(tmp_path / "model", folder, texts=TEXTS)
    check_old(folder, MODEL)


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "build", interrupt)
    with pytest.raises(Interrupted):
        embedded.embedded_folder()
    assert list(tmp_path.iterdir()) == []


# sums


def flip(path: Path, at: float = 0.9) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "head.safetensors",
        "encoder/model.safetensors",
        "encoder/tokenizer.json",
        "thresholds/emotions.json",
    ],
)
def test_a_byte_of_a_saved_model_that_is_another_is_named(bert, tmp_path, name):
    bert.save(tmp_path / "model")
    ViralBERT.load(tmp_path / "model", "cpu")
    plain = (tmp_path / "model" / name).read_bytes()
    if name.endswith(".json"):  # still JSON
        (tmp_path / "model" / name).write_bytes(plain.replace(b"0.5", b"0.6", 1) + b" ")
    else:
        flip(tmp_path / "model" / name)
    with pytest.raises(DataError, match=f"{name} is damaged: its sha256"):
        ViralBERT.load(tmp_path / "model", "cpu")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing|lacks|damaged"):
        ViralBERT.load(tmp_path / "model", "cpu")


def test_a_model_without_sums_is_read_with_a_warning(bert, tmp_path, caplog):
    bert.save(tmp_path / "model")
    (tmp_path / "model" / files.SUMS).unlink()
    ViralBERT.load(tmp_path / "model", "cpu")
    assert "has no SHA256SUMS" in caplog.text


def test_a_damaged_export_is_named_by_its_file(graph, tiny_tokenizer, tmp_path, monkeypatch):
    import onnx

    monkeypatch.setattr(export, "_graph", lambda *_: onnx.ModelProto.FromString(graph[1]))
    save_classifier(tmp_path / "model", graph[0], tiny_tokenizer, max_length=16)
    export.export(tmp_path / "model", tmp_path / "out", texts=TEXTS)
    for name in ("model.onnx", "model.onnx.data"):
        plain = (tmp_path / "out" / name).read_bytes()
        flip(tmp_path / "out" / name, 0.5)
        with pytest.raises(DataError, match=f"{name} is damaged"):
            OnnxModel.load(tmp_path / "out")
        (tmp_path / "out" / name).write_bytes(plain)
    OnnxModel.load(tmp_path / "out")


def test_a_damaged_embedded_encoder_is_named_and_one_without_sums_is_built_anew(
    pooled, tmp_path, monkeypatch
):
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        embedded, "build", lambda recipe, folder: pooled.encoder.save_pretrained(folder)
    )
    folder = embedded.embedded_folder()
    assert embedded.embedded_folder() == folder
    flip(folder / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors is damaged.* it is built again"):
        embedded.embedded_folder()
    (folder / files.SUMS).unlink()
    embedded.embedded_folder()
    files.check_sums(folder)


def test_a_cache_that_is_a_file_is_told(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="name another folder in VIRALBERT_CACHE"):
        embedded.embedded_folder()


def test_pipes_and_devices_in_a_model_are_refused(bert, tmp_path):
    bert.save(tmp_path / "model")
    (tmp_path / "model" / "calibration.json").unlink()
    os.mkfifo(tmp_path / "model" / "calibration.json")
    with pytest.raises(DataError, match=r"calibration\.json is neither a file nor a folder"):
        ViralBERT.load(tmp_path / "model", "cpu")
    (tmp_path / "model" / "calibration.json").unlink()
    (tmp_path / "model" / "calibration.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"calibration\.json is neither a file nor a folder"):
        ViralBERT.load(tmp_path / "model", "cpu")


ABSURD = [
    ("kind", "other"),
    ("kind", ["pooled"]),
    ("pooling", "sum"),
    ("pooling", 3),
    ("dropout", "a"),
    ("dropout", 1.5),
    ("dropout", float("nan")),
    ("dropout", True),
    ("n_queries", -1),
    ("n_queries", 10**9),
    ("n_queries", 1.5),
    ("train_embeddings", "yes"),
    ("names", "ab"),
    ("names", ["a", "a"]),
    ("names", [1, 2]),
    ("names", ["a"]),
    ("names", None),
    ("max_length", 0),
    ("max_length", 4096),
    ("max_length", "128"),
    ("head_share", 2),
    ("problem_type", "regression"),
    ("task", 5),
]
ABSURD_HEADS = [
    [],
    {},
    {"a": {}},
    {"a": None},
    {"a": {"names": ["x"], "hidden": [10**8], "dropout": [0.1]}},
    {"a": {"names": ["x"], "hidden": [4] * 200_000, "dropout": [0.1] * 200_000}},
    {"a": {"names": ["x"], "hidden": [4], "dropout": []}},
    {"a.b": {"names": ["x"], "hidden": [], "dropout": []}},
    {"a": {"names": [], "hidden": [], "dropout": []}},
    {"a": {"names": ["x"], "hidden": ["4"], "dropout": [0.1]}},
]


def change(path: Path, **values: object) -> None:
    """As somebody would who sends a model that is whole: the sums are those of the changed
    files."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    files.write_sums(path.parent if path.name == "classifier.json" else path.parent.parent)


def test_absurd_settings_of_a_foreign_model_are_errors(pooled, bert, tiny_tokenizer, tmp_path):
    save_classifier(tmp_path / "model", pooled, tiny_tokenizer, ["a", "b"], max_length=32)
    path = tmp_path / "model" / "classifier.json"
    plain = path.read_text()
    load_classifier(tmp_path / "model", "cpu")
    for name, value in ABSURD:
        path.write_text(plain)
        change(path, **{name: value})
        with pytest.raises(DataError):
            load_classifier(tmp_path / "model", "cpu")
    for content in (b"[1]", b"\xff\xfe{", b"[" * 100_000, b"{}", b"null", b'{"kind": "pooled"}'):
        path.write_bytes(content)
        with pytest.raises(DataError):
            load_classifier(tmp_path / "model", "cpu")
    path.write_text(plain)
    change(tmp_path / "model" / "encoder" / "config.json", num_hidden_layers=10**6)
    with pytest.raises(DataError, match="num_hidden_layers: expected a whole number up to 1000"):
        load_classifier(tmp_path / "model", "cpu")
    bert.save(tmp_path / "two")
    for tasks in ABSURD_HEADS:
        change(tmp_path / "two" / "classifier.json", tasks=tasks)
        with pytest.raises(DataError):
            load_classifier(tmp_path / "two", "cpu")


def test_two_equal_models_are_equal_folders(tiny_tokenizer, tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(0)
        body = tiny.bert(pooler=True)
        torch.manual_seed(0 if name == "one" else 1)
        torch.nn.init.normal_(body.pooler.dense.weight)  # as a loading that finds none draws it
        save_classifier(tmp_path / name, PooledClassifier(body, 1).eval(), tiny_tokenizer, ["a"])
        torch.manual_seed(0)
    assert (tmp_path / "one" / "encoder" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "encoder" / "model.safetensors"
    ).read_bytes()
