"""Several tasks in one training: batches, surgery in the loop, saved models."""

import math
from collections import Counter

import pytest
import torch

from tests.utils.training.two_tasks import QUICK, make_model, make_tasks, make_texts
from viralbert_utils.models import classifiers, inference, storage
from viralbert_utils.training import batches
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import Settings, Task

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
