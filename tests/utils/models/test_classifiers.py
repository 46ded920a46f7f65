"""Classifiers: saved and read again, in the order of the texts, and where their outputs start."""

import importlib

import pytest
import torch

from tests.utils.training.small_task import make_data, make_model
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.models import inference, storage


def test_a_saved_classifier_comes_back_the_same(tmp_path, tiny_tokenizer):
    model = make_model(pooling="attention+max").eval()
    torch.nn.init.normal_(model.queries)
    storage.save_classifier(
        tmp_path / "m", model, tiny_tokenizer, ["bad", "neutral", "good"], max_length=16
    )
    storage.save_classifier(
        tmp_path / "m", model, tiny_tokenizer, ["bad", "neutral", "good"], max_length=32
    )
    again, _, settings = storage.load_classifier(tmp_path / "m")
    rows = make_data(20).rows
    assert torch.equal(
        inference.predict_logits(model, rows, 0), inference.predict_logits(again, rows, 0)
    )
    assert settings["names"] == ["bad", "neutral", "good"]
    assert settings["max_length"] == 32
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert not [p for p in (tmp_path / "m").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    (tmp_path / "m" / "head.safetensors").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"head.safetensors is damaged: its sha256 is not the one in SHA256SUMS"
    ):
        storage.load_classifier(tmp_path / "m")
    with pytest.raises(DataError, match="is no saved classifier"):
        storage.load_classifier(tmp_path)


def test_predictions_keep_the_order_of_the_texts():
    model, rows = make_model(), make_data(30).rows
    together = inference.predict_logits(model, rows, 0, batch_size=7)
    alone = torch.cat([inference.predict_logits(model, [row], 0) for row in rows])
    assert (together - alone).abs().max() < 1e-5


def test_text_vectors_keep_their_order():
    encoder = make_model().encoder.eval()
    rows = make_data(30).rows
    together = inference.text_vectors(encoder, rows, 0, "mean", batch_size=7)
    with torch.inference_mode():
        alone = [encoder(torch.tensor([row]))[0].mean(dim=1) for row in rows]
    assert (together - torch.cat(alone)).abs().max() < 1e-5


def test_benchmarks_read_all_layers_side_by_side(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # they import each other by file name
    wrap = importlib.import_module("benchmarks.pretraining").AllLayers
    encoder, rows = make_model().encoder.eval(), make_data(5).rows
    found = inference.text_vectors(wrap(encoder), rows, 0)
    last = inference.text_vectors(encoder, rows, 0)
    assert found.shape[1] == (encoder.config.num_hidden_layers + 1) * last.shape[1]
    assert (found[:, -last.shape[1] :] - last).abs().max() < 1e-6


def test_outputs_start_at_the_rates():
    model = make_model(rates=torch.tensor([0.1, 0.5, 0.0])).eval()
    with torch.no_grad():
        model.head.weight.zero_()
    start = inference.predict_logits(model, make_data(4).rows, 0).sigmoid()[0]
    assert start.tolist() == pytest.approx([0.1, 0.5, 1e-4], rel=1e-3)


def test_centred_vectors_have_nothing_in_common():
    model = make_model().eval()
    rows = make_data(200).rows
    with pytest.raises(ValueError, match="1 texts to centre on"):
        model.centre_on(rows[:1], 0)
    model.centre_on(rows, 0)
    vectors = inference.text_vectors(model.encoder, rows, 0)
    assert (vectors - model.centre).mean(dim=0).abs().max() < 1e-5
    assert vectors.mean(dim=0).abs().max() > 0.1
