"""Frozen layers: computed once for all epochs, left where they are, and trained in stages."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertModel

from tests.utils.training.two_tasks import QUICK, make_encoder, make_model, make_tasks, make_texts
from viralbert_utils.lessons import frozen, stages
from viralbert_utils.lessons.stages import Stage, fit_stages
from viralbert_utils.models import inference, storage
from viralbert_utils.training import checkpoints, loop, losses
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import Encoded, Settings, Task

STAGES = (
    Stage(Settings(epochs=2, batch_size=16, learning_rate=1e-2, surgery="pcgrad"), top_layers=0),
    Stage(
        Settings(epochs=2, batch_size=16, learning_rate=1e-3, head_factor=10, surgery="pcgrad"),
        top_layers=1,
    ),
)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "xlm-roberta"])
@pytest.mark.parametrize("top_layers", [0, 1, 3])
@pytest.mark.parametrize("pooling", ["cls", "mean", "attention+max"])
def test_cached_layers_give_what_the_whole_encoder_gives(tmp_path, kind, top_layers, pooling):
    model, texts = make_model(pooling, kind).eval(), make_texts(20, 1, 0)
    cached = frozen.cache(model, texts, top_layers, tmp_path)
    assert cached.vectors.dtype == np.float16
    assert len(cached.vectors) == (
        20 if top_layers == 0 and pooling != "attention+max" else sum(texts.lengths)
    )
    found = inference.predict_logits(frozen.upper_classifier(model, top_layers), cached, 0)
    assert (found - inference.predict_logits(model, texts, 0)).abs().max() < 2e-3
    assert len(frozen.layers_of(model.encoder)) == 3, "the model itself is left whole"


@pytest.mark.parametrize("pooling", ["cls", "mean", "attention+max"])
def test_training_on_a_cache_is_training_without_it(pooling):
    """The cache holds half-precision numbers, hence the tolerance; high rates would amplify their
    rounding."""
    stages = [
        replace(s, settings=replace(s.settings, learning_rate=s.settings.learning_rate / 10))
        for s in STAGES
    ]
    histories, weights = [], []
    for cached in (False, True):
        model = make_model(pooling)
        history, final = fit_stages(model, make_tasks(), stages, cached=cached)
        histories.append(history.set_index(["stage", "epoch"])[["train_loss", "loss"]])
        weights.append(final)
    assert (histories[0] - histories[1]).abs().to_numpy().max() < 1e-4
    assert weights[0].keys() == weights[1].keys()


def test_a_cache_does_not_depend_on_a_pooler_that_nobody_reads():
    model = make_model()
    before = frozen.digest(model, 1)
    model.encoder = BertModel(model.encoder.config)
    model.encoder.load_state_dict(make_encoder().state_dict(), strict=False)
    assert frozen.digest(model, 1) == before


def test_a_cache_is_computed_once_for_the_same_texts_and_weights(tmp_path, monkeypatch):
    model, texts = make_model(), make_texts(20, 1, 0)
    first = frozen.cache(model, texts, 1, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "_fill", None)
        assert np.array_equal(frozen.cache(model, texts, 1, tmp_path).vectors, first.vectors)
    with torch.no_grad():
        model.encoder.encoder.layer[2].output.dense.weight.add_(1)
    frozen.cache(model, texts, 1, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "the layer that moved lies above the cache"
    with torch.no_grad():
        model.encoder.encoder.layer[0].output.dense.weight[0, 0] += 1e-3
    frozen.cache(model, texts, 1, tmp_path)
    frozen.cache(model, make_texts(20, 1, 1), 1, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_only_the_top_layers_and_heads_move():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, final = fit_stages(model, make_tasks(), STAGES)
    moved = {name for name, tensor in final.items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("encoder.encoder.layer.2.") for name in moved)
    assert any(name.startswith("heads.virality.") for name in moved)
    assert not [
        name
        for name in moved
        if name.startswith(("encoder.embeddings.", "encoder.encoder.layer.1."))
    ]
    changed = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert not [
        name
        for name in changed
        if name.startswith(("encoder.embeddings.", "encoder.encoder.layer.1."))
    ]


def test_best_and_last_epoch_are_both_to_be_had():
    """A second stage that only does harm: the best epoch lies in the first, where the top layer had
    not moved."""
    harmful = Stage(
        Settings(epochs=2, batch_size=16, learning_rate=30, surgery="pcgrad"), top_layers=1
    )
    model, tasks = make_model("mean"), make_tasks()
    start = model.encoder.encoder.layer[2].output.dense.weight.clone()
    history, final = fit_stages(model, tasks, [STAGES[0], harmful])
    assert history["best"].sum() == 1
    assert history.loc[history["best"], "stage"].item() == 1
    assert torch.equal(model.encoder.encoder.layer[2].output.dense.weight, start)

    def loss() -> float:
        parts = {
            name: inference.predict_logits(model, task.validation, 0, task=name)
            for name, task in tasks.items()
        }
        return sum(
            float(task.loss(parts[name], task.validation.labels)) for name, task in tasks.items()
        )

    assert loss() == pytest.approx(history["loss"].min(), abs=1e-3)
    model.load_state_dict(final, strict=False)
    assert loss() == pytest.approx(history["loss"].iloc[-1], abs=1e-3)


def test_only_what_trains_is_copied(monkeypatch, caplog):
    """Word vectors are most of a small model; a copy of them for each training would double its
    memory."""
    copied: set[str] = set()
    copy = checkpoints.copy_state

    def noted(state):
        copied.update(state)
        return copy(state)

    for module in (loop, stages):
        monkeypatch.setattr(module, "copy_state", noted)
    with caplog.at_level("INFO", "viralbert.training"):
        fit_stages(make_model(), make_tasks(), STAGES)
    told = [message.partition(",")[0] for message in caplog.messages]
    assert list(dict.fromkeys(told)) == ["stage 1/2", "stage 2/2"]
    assert any(name.startswith("encoder.encoder.layer.2.") for name in copied)
    assert not [name for name in copied if name.startswith("encoder.embeddings.")]


def test_a_training_in_stages_resumes(tmp_path, monkeypatch):
    whole = make_model()
    expected, _ = fit_stages(whole, make_tasks(), STAGES)
    save = checkpoints.save_checkpoint

    def power_cut(path, *rest):
        save(path, *rest)
        if path.name == "stage2.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "save_checkpoint", power_cut)
        fit_stages(make_model(), make_tasks(), STAGES, folder=tmp_path)
    again = make_model()
    history, _ = fit_stages(again, make_tasks(), STAGES, folder=tmp_path)
    assert history.equals(expected)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True)
    )
    assert {path.name for path in tmp_path.iterdir()} == {"stage1.pt", "stage2.pt"}


def test_a_saved_model_trains_on(tmp_path, tiny_tokenizer):
    model, tasks = make_model("mean"), make_tasks()
    first = fit(model, tasks, QUICK)
    storage.save_classifier(tmp_path / "m", model, tiny_tokenizer)
    again, _, _ = storage.load_classifier(tmp_path / "m")
    longer = Settings(epochs=6, batch_size=16, learning_rate=3e-3, head_factor=3, surgery="pcgrad")
    assert fit(again, tasks, longer)["loss"].min() < first["loss"].min()


def test_frozen_layers_have_no_dropout_and_others_do(monkeypatch):
    model = make_model()
    frozen.freeze(model, 1)
    model.train()
    loop.stop_dropout(model)
    layers = model.encoder.encoder.layer
    assert [layer.training for layer in layers] == [False, False, True]
    assert not model.encoder.embeddings.dropout.training
    assert model.heads["virality"].training


def test_freezing_can_be_taken_back():
    model = make_model()
    frozen.freeze(model, 0)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    frozen.freeze(model, None)
    words = model.encoder.get_input_embeddings().weight
    assert [p.requires_grad for p in model.encoder.parameters()] == [
        p is not words for p in model.encoder.parameters()
    ]


def test_bad_requests_are_named(tmp_path):
    model, texts = make_model(), make_texts(20, 1, 0)
    with pytest.raises(ValueError, match="top_layers is 4; the encoder has 3 layers"):
        frozen.freeze(model, 4)
    with pytest.raises(
        ValueError, match=r"the cache of 20 texts would take 0\.0 GiB, the limit is 1e-07; raise it"
    ):
        frozen.cache(model, texts, 1, tmp_path, limit_gib=1e-7)
    with pytest.raises(ValueError, match=r"Linear has no `embeddings` and `encoder\.layer`"):
        frozen.layers_of(torch.nn.Linear(2, 2))
    empty = Task(Encoded([], torch.zeros(0, 1)), texts, losses.binary_cross_entropy())
    with pytest.raises(
        ValueError, match="nothing to do with 0 training and 20 validation texts of task 'virality'"
    ):
        fit(model, {"virality": empty}, QUICK)
