"""Several tasks in one training: batches, surgery in the loop, stages with frozen layers, caches,
saved models."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tests import tiny
from viralbert_utils.evaluation import metrics
from viralbert_utils.lessons import frozen, stages
from viralbert_utils.lessons.stages import Stage, fit_stages
from viralbert_utils.models import classifiers, inference, storage
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier
from viralbert_utils.training import batches, checkpoints, loop, losses
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import Encoded, Settings, Task

SIZES = tiny.config(60, 40, n_layers=3)
HEADS = {
    "virality": Head(("viral",), (32, 16), (0.1, 0.1)),
    "emotions": Head(("a", "b", "c"), (32,), (0.1,)),
}
QUICK = Settings(
    epochs=2, batch_size=16, learning_rate=3e-3, head_factor=3, warmup=0.1, surgery="pcgrad"
)
STAGES = (
    Stage(Settings(epochs=2, batch_size=16, learning_rate=1e-2, surgery="pcgrad"), top_layers=0),
    Stage(
        Settings(epochs=2, batch_size=16, learning_rate=1e-3, head_factor=10, surgery="pcgrad"),
        top_layers=1,
    ),
)


def make_encoder(kind: str = "bert"):
    torch.manual_seed(1)
    if kind == "distilbert":
        names = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
        sizes = {"vocab_size": 60, "max_position_embeddings": 40}
        return DistilBertModel(DistilBertConfig(**sizes, **names))
    if kind == "xlm-roberta":
        return XLMRobertaModel(XLMRobertaConfig(**SIZES, pad_token_id=0), add_pooling_layer=False)
    return tiny.bert(**SIZES)


def make_model(pooling: str = "cls", kind: str = "bert", **options) -> MultiTaskClassifier:
    encoder = make_encoder(kind)
    torch.manual_seed(2)
    return MultiTaskClassifier(encoder, HEADS, pooling, train_embeddings=False, **options)


def make_texts(n: int, n_classes: int, seed: int) -> Encoded:
    """Class k is there when token k + 3 is."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_classes)) < 0.4).astype(int)
    rows = []
    for flags in labels:
        row = rng.integers(20, 60, rng.integers(4, 20)).tolist() + [
            int(k) + 3 for k in np.flatnonzero(flags)
        ]
        rng.shuffle(row)
        rows.append([1, *row, 2])
    return Encoded(rows, torch.tensor(labels))


def make_tasks(n_virality: int = 40, n_emotions: int = 120) -> dict[str, Task]:
    def auc(logits, labels):
        return {"roc_auc": metrics.mean_roc_auc(labels.numpy(), logits.numpy())}

    bce = losses.binary_cross_entropy()
    return {
        "virality": Task(make_texts(n_virality, 1, 0), make_texts(120, 1, 1), bce, auc),
        "emotions": Task(make_texts(n_emotions, 3, 2), make_texts(60, 3, 3), bce, auc),
    }


# batches


@pytest.mark.parametrize(
    ("sampling", "share"), [("proportional", 0.1), ("sqrt", 0.25), ("equal", 0.5)]
)
def test_sampling_sets_the_share_of_a_task(sampling, share):
    lengths = {"few": [5] * 100, "many": [7] * 900}
    plan = batches.mixed_batches(lengths, Settings(batch_size=20, sampling=sampling), 0)
    drawn = Counter(task for step in plan for task, positions in step for _ in positions)
    assert drawn["few"] / drawn.total() == pytest.approx(share, abs=0.01)
    assert drawn.total() == 1000
    assert {sum(len(p) for _, p in step) for step in plan} <= {19, 20, 21}


def test_proportional_batches_hold_every_text_once():
    lengths = {"few": [5, 3, 9], "many": list(range(1, 101))}
    plan = batches.mixed_batches(lengths, Settings(batch_size=8, bucket=3), 0)
    for task, own in lengths.items():
        assert sorted(
            p for step in plan for name, part in step if name == task for p in part
        ) == list(range(len(own)))
    assert any(len(step) == 1 for step in plan), "three texts do not reach into thirteen batches"


def test_short_supplies_come_round_again_and_long_ones_go_on():
    lengths = {"few": [1] * 10, "many": [1] * 90}
    seen = Counter()
    for epoch in range(9):
        for step in batches.mixed_batches(
            lengths, Settings(batch_size=10, sampling="equal"), epoch
        ):
            seen.update((task, p) for task, part in step for p in part)
    assert {seen["few", p] for p in range(10)} == {45}
    assert {seen["many", p] for p in range(90)} == {5}


def test_unknown_sampling_is_named():
    with pytest.raises(
        ValueError, match="sampling 'log' is not known; use proportional, sqrt, equal"
    ):
        batches.mixed_batches({"a": [1]}, Settings(sampling="log"), 0)


# the model


def test_logits_of_all_tasks_are_those_of_each():
    model = make_model().eval()
    ids, mask = make_texts(5, 1, 0).batch(range(5), 0)
    together = model.by_task(model(ids, mask))
    assert {task: part.shape for task, part in together.items()} == {
        "virality": (5, 1),
        "emotions": (5, 3),
    }
    for task, part in together.items():
        torch.testing.assert_close(part, model(ids, mask, task))


def test_heads_of_the_published_model():
    heads = classifiers.viralbert_heads(768)
    shapes = {
        task: [tuple(m.weight.shape) for m in head.build(768) if hasattr(m, "weight")]
        for task, head in heads.items()
    }
    assert shapes == {
        "virality": [(256, 768), (128, 256), (1, 128)],
        "emotions": [(256, 768), (28, 256)],
    }


@pytest.mark.parametrize("pooling", ["cls", "attention+mean"])
def test_a_saved_model_comes_back_the_same(tmp_path, pooling, tiny_tokenizer):
    model = make_model(pooling).eval()
    rows = make_texts(7, 1, 0).rows
    before = inference.predict_logits(model, rows, 0)
    storage.save_classifier(tmp_path / "m", model, tiny_tokenizer, max_length=32)
    again, _, settings = storage.load_classifier(tmp_path / "m")
    torch.testing.assert_close(inference.predict_logits(again, rows, 0), before)
    assert again.tasks == model.tasks
    assert settings["max_length"] == 32
    assert {"torch", "transformers"} <= set(settings["versions"])
    assert not [p for p in (tmp_path / "m").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


# training


@pytest.mark.parametrize("surgery", ["none", "pcgrad", "imtl-g"])
def test_both_tasks_learn(surgery):
    model = make_model("mean")
    settings = Settings(
        epochs=8, batch_size=16, learning_rate=1e-3, head_factor=10, surgery=surgery
    )
    log = []
    history = fit(model, make_tasks(150, 300), settings, log=log)
    last = history.iloc[-1]
    assert last["virality.roc_auc"] > 0.68
    assert last["emotions.roc_auc"] > 0.68
    assert last["loss"] == pytest.approx(last["virality.loss"] + last["emotions.loss"])
    assert len(log) == 8 * 29
    assert -1 <= history["cosine"].min() < 1
    assert history["conflicts"].between(0, 1).all()


def test_the_weight_of_a_task_scales_its_loss():
    tasks = make_tasks()
    tasks["virality"] = Task(
        tasks["virality"].train, tasks["virality"].validation, tasks["virality"].loss, weight=0.1
    )
    row = fit(make_model(), tasks, QUICK).iloc[0]
    assert row["loss"] == pytest.approx(0.1 * row["virality.loss"] + row["emotions.loss"])


def test_same_seed_same_weights():
    runs = []
    for _ in range(2):
        model = make_model()
        fit(model, make_tasks(), QUICK)
        runs.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*runs)


def test_accumulation_and_clipping_work_with_surgery():
    model = make_model()
    history = fit(
        model,
        make_tasks(),
        Settings(epochs=1, batch_size=8, accumulate=3, surgery="pcgrad", clip_norm=0.1),
    )
    assert math.isfinite(history["loss"].iloc[0])


# frozen layers


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


def test_only_what_trains_is_copied(monkeypatch):
    """Word vectors are most of a small model; a copy of them for each training would double its
    memory."""
    copied: set[str] = set()
    copy = checkpoints.copy_state

    def noted(state):
        copied.update(state)
        return copy(state)

    for module in (loop, stages):
        monkeypatch.setattr(module, "copy_state", noted)
    fit_stages(make_model(), make_tasks(), STAGES)
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
