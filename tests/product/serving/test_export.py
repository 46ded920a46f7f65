"""Export: the same answers as torch, what stands in the folder, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from tests.product.serving.small_models import (
    MANY,
    TEXTS,
    make_encoder,
    make_tokenizer,
    table,
    traced,
)
from viralbert.cli import main
from viralbert.serving import export
from viralbert.serving.onnx_model import OnnxModel
from viralbert.serving.predictor import HEAD_SHARE, ViralBERT
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.data.sources import load
from viralbert_utils.lessons import columns, hybrid
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.models.storage import save_classifier


def test_an_export_answers_as_torch_does(bert, folders):
    texts = [*MANY, "", "  ", "😂", "\ud83d", "о" * 5000, "я"]
    exported = ViralBERT.load(folders / "float")
    torch_s, onnx_s = bert.predict(texts), exported.predict(texts)
    assert np.abs(table(torch_s) - table(onnx_s)).max() < 1e-5
    assert [one.is_viral for one in torch_s] == [one.is_viral for one in onnx_s]
    assert table([exported.predict(text) for text in texts]) == pytest.approx(
        table(onnx_s), abs=1e-5
    )
    assert list(exported.predict_iter(texts[:3])) == onnx_s[:3]
    assert exported.scores(texts).emotions == pytest.approx(bert.scores(texts).emotions, abs=1e-5)
    assert (exported.emotions, exported.virality) == (bert.emotions, bert.virality)


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "attention+max+mean"), ("roberta", "cls")])
def test_a_pooled_classifier_of_any_encoder(kind, pooling, tmp_path):
    model = PooledClassifier(make_encoder(kind), 3, pooling).eval()
    model.centre += 0.1
    tokenizer = make_tokenizer()
    save_classifier(
        tmp_path / "torch", model, tokenizer, ["плохо", "ничего", "хорошо"], max_length=40
    )
    exported = export.export(tmp_path / "torch", tmp_path / "onnx", texts=TEXTS)
    assert exported.tasks == {"classes": ("плохо", "ничего", "хорошо")}
    for texts in (TEXTS, TEXTS[:1], ["о" * 100, "я"]):
        rows = tokens.encode(tokenizer, texts, 40, HEAD_SHARE)
        with torch.inference_mode():
            ids, mask = map(torch.from_numpy, tokens.pad(rows, 0))
            assert exported.logits(texts) == pytest.approx(model(ids, mask).numpy(), abs=1e-5)
    with pytest.raises(
        DataError,
        match="need a model with the tasks virality and emotions, found classes; lesson 06",
    ):
        ViralBERT.load(tmp_path / "onnx")


def test_a_hybrid_takes_its_columns_beside_the_text(tmp_path):
    rows = pd.DataFrame({"title": TEXTS, "length": [3.0, 9.0, 1.0, 4.0], "label": list("abab")})
    tokenizer, preparation = (
        make_tokenizer(),
        columns.prepare(rows, ["title"], ["length"], n_bins=2),
    )
    torch.manual_seed(0)
    model = hybrid.HybridClassifier(make_encoder(), 2, preparation.columns(rows).shape[1]).eval()
    whole = hybrid.Hybrid(model, tokenizer, preparation, ["a", "b"], 40)
    whole.save(tmp_path / "torch")
    exported = export.export(tmp_path / "torch", tmp_path / "onnx", texts=TEXTS)
    found = exported.logits(preparation.text(rows), preparation.columns(rows))
    assert softmax(found, axis=1) == pytest.approx(whole.probabilities(rows), abs=1e-5)
    assert exported.tasks == {"classes": ("a", "b")}


def test_a_hybrid_of_word_vectors_alone_is_exported_in_int8(tmp_path):
    rows = pd.DataFrame({"title": TEXTS, "length": [3.0, 9.0, 1.0, 4.0], "label": list("abab")})
    preparation = columns.prepare(rows, ["title"], ["length"], n_bins=2)
    encoder = make_encoder()
    encoder.encoder.layer = encoder.encoder.layer[:0]
    encoder.config.num_hidden_layers = 0
    torch.manual_seed(0)
    model = hybrid.HybridClassifier(encoder, 2, preparation.columns(rows).shape[1]).eval()
    whole = hybrid.Hybrid(model, make_tokenizer(), preparation, ["a", "b"], 40)
    whole.save(tmp_path / "torch")
    exported = export.export(tmp_path / "torch", tmp_path / "int8", int8=True, texts=TEXTS)
    found = exported.logits(preparation.text(rows), preparation.columns(rows))
    assert softmax(found, axis=1) == pytest.approx(whole.probabilities(rows), abs=0.02)
    stored = {
        one.data_type for one in onnx.load(tmp_path / "int8" / "model.onnx").graph.initializer
    }
    assert onnx.TensorProto.INT8 in stored, "the table of word vectors"


def test_what_the_model_file_says(bert, folders):
    about = {name: OnnxModel.load(folders / name).about for name in ("float", "int8")}
    assert [about[name]["int8"] for name in about] == [False, True]
    assert about["float"]["difference"] < 1e-5 < about["int8"]["difference"]
    assert about["float"]["source_sha256"] == about["int8"]["source_sha256"]
    assert about["float"]["tasks"] == {"emotions": list(EMOTIONS), "virality": ["viral"]}
    assert about["float"]["settings"]["max_length"] == 24
    assert set(about["float"]["versions"]) == set(export.PACKAGES)
    assert (
        ViralBERT.load(folders / "float").settings["source_sha256"]
        == about["float"]["source_sha256"]
    )
    graph = onnx.load(folders / "float" / "model.onnx", load_external_data=False).graph
    dimensions = [
        [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    ]
    assert dimensions == [[0, 0], [0, 0], [0, 29]], "batch and length are free"


@pytest.mark.parametrize("name", ["float", "int8"])
def test_an_export_says_nothing_about_the_machine_that_made_it(folders, name):
    for path in (folders / name).iterdir():
        raw = path.read_bytes()
        for place in (str(ROOT), "site-packages", "forward(", "/lib/python", str(Path.home())):
            assert place.encode() not in raw, (path.name, place)


def test_an_export_replaces_an_export_and_nothing_else(folders, tmp_path):
    (tmp_path / "letters.txt").write_text("важное")
    with pytest.raises(DataError, match="holds something that is no exported model"):
        export.export(folders / "torch", tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "важное"
    with pytest.raises(DataError, match="no saved classifier"):
        export.export(tmp_path, tmp_path / "new")


def test_an_export_that_answers_otherwise_is_not_written(folders, tmp_path, monkeypatch):
    traced(monkeypatch, folders)
    step = OnnxModel.step
    monkeypatch.setattr(OnnxModel, "step", lambda self, *inputs: step(self, *inputs) + 0.001)
    with pytest.raises(
        DataError, match=r"differ from torch's by up to 0.0002\d on 4 texts, more than 0.0001"
    ):
        export.export(folders / "torch", tmp_path / "new", texts=TEXTS)
    assert not list(tmp_path.iterdir())


def test_the_texts_that_an_export_is_measured_on_are_the_first_of_the_sample():
    shipped = export.TEXTS.read_text(encoding="utf-8").splitlines()
    assert shipped == list(load("emotions").splits["all"]["text"][:256])


def test_the_command(folders, tmp_path, capsys, monkeypatch, manual):
    traced(monkeypatch, folders)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--model", str(folders / "torch"), "-o", "exported", "--int8"]) == 0
    said = capsys.readouterr().out
    assert "probabilities differ from torch's by 0.0" in said
    manual("serve.md", said)
    Path("exported").rename("new")
    assert OnnxModel.load(tmp_path / "new").about["int8"]
    assert main(["export", "--model", str(tmp_path), "-o", str(tmp_path / "other")]) == 1
    assert "there, as lesson 06 leaves them (viralbert run --only 06" in capsys.readouterr().err


def test_an_export_is_not_exported_again(tmp_path):
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "model.onnx").touch()
    for target in ("exported", "again"):
        with pytest.raises(
            DataError,
            match=r"exported is an exported model already: .* the folder that it was made from",
        ):
            export.export(tmp_path / "exported", tmp_path / target)
    with pytest.raises(DataError, match="exported is an exported hybrid already"):
        hybrid.Hybrid.load(tmp_path / "exported")
