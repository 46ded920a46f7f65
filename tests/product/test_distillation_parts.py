"""What distillation is made of: a loss with gaps, heads out of one, and a judgement in halves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tests import tiny
from viralbert import distillation
from viralbert.distillation import Part
from viralbert_utils.evaluation import intervals, metrics
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier


def test_all_known_targets_give_the_plain_loss_and_unknown_ones_count_nothing():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.rand(4, 3)
    weights = torch.tensor([1.0, 2.0, 3.0])
    one = distillation.masked_entropy({"emotions": slice(0, 3)}, weights)
    plain = binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    assert one(logits, labels).item() == pytest.approx(plain.item())
    both = {"emotions": slice(0, 2), "virality": slice(2, 3)}
    several = distillation.masked_entropy(both, None)
    parts = [
        binary_cross_entropy_with_logits(logits[:, own], labels[:, own]) for own in both.values()
    ]
    assert several(logits, labels).item() == pytest.approx(
        (1.0 * parts[0].item() + 0.2 * parts[1].item()) / 1.2
    )
    labels[1:, 0] = labels[:, 2] = torch.nan
    value = several(logits, labels)
    known = ~labels.isnan()
    rest = binary_cross_entropy_with_logits(logits[known], labels[known])
    assert value.item() == pytest.approx(rest.item() / 1.2), "virality has no target at all"
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert torch.equal(gradient != 0, known)


@pytest.fixture
def pooled() -> PooledClassifier:
    torch.manual_seed(0)
    model = PooledClassifier(tiny.bert(), 5, distillation.POOLING, 0.4).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        model.centre.normal_()
    return model


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])


def test_a_head_for_each_task_gives_the_columns_of_the_one_head(pooled):
    names = {"emotions": ("a", "b"), "cedr": ("c",), "virality": ("d", "e")}
    several = distillation.by_task(pooled, names)
    with torch.inference_mode():
        wanted = pooled(IDS, (IDS > 0).long())
        together = several(IDS, (IDS > 0).long())
        assert together.numpy() == pytest.approx(wanted.numpy(), abs=1e-5)
        for task, columns in (("emotions", [0, 1]), ("cedr", [2]), ("virality", [3, 4])):
            found = several(IDS, (IDS > 0).long(), task)
            assert found.numpy() == pytest.approx(wanted[:, columns].numpy(), abs=1e-5)
    assert {task: head.names for task, head in several.tasks.items()} == names
    assert not several.training


def test_a_calibration_goes_into_the_head_of_its_task_alone():
    torch.manual_seed(0)
    heads = {"one": Head(("a", "b")), "other": Head(("c",))}
    model = MultiTaskClassifier(tiny.bert(), heads, "mean").eval()
    with torch.inference_mode():
        before = model(IDS, (IDS > 0).long()).numpy()
    line = Calibration(np.array([0.5, 2.0]), np.array([-1.0, 3.0]))
    distillation.calibrate_head(model, "one", line)
    with torch.inference_mode():
        after = model(IDS, (IDS > 0).long()).numpy()
    assert after[:, :2] == pytest.approx(before[:, :2] * line.slope + line.intercept, abs=1e-5)
    assert after[:, 2].tolist() == before[:, 2].tolist()


# figures


@pytest.fixture
def part() -> Part:
    labels = np.random.default_rng(0).integers(0, 2, (80, 2))
    texts = [str(k) for k in range(80)]
    tunes = np.arange(80) % 2 == 0
    return Part(("a", "b"), [], labels[:0], texts, labels, tunes, published_test=False)


def noisy(labels: np.ndarray, noise: float = 3.0) -> np.ndarray:
    return 2.0 * labels - 1 + np.random.default_rng(1).normal(0, noise, labels.shape)


def test_a_perfect_system_is_perfect_and_beats_another_by_what_that_one_lacks(part):
    perfect = (2.0 * part.held_labels - 1) * 4
    figures = distillation.judge(
        part, {"best": perfect, "same": perfect, "noisy": noisy(part.held_labels)}
    )
    assert figures["best"]["macro-F1"]["value"] == figures["best"]["ROC AUC"]["value"] == 1
    assert figures["best"]["Brier score"] < 0.01 < figures["noisy"]["Brier score"]
    assert set(figures["best"]) == {"macro-F1", "ROC AUC", "Brier score"}
    for name, score in (("macro-F1", "macro-F1"), ("ROC AUC", "ROC AUC")):
        same = figures["same"][f"best minus this, {name}"]
        assert (same["low"], same["value"], same["high"]) == (0, 0, 0)
        lead = figures["noisy"][f"best minus this, {name}"]
        assert lead["value"] == pytest.approx(1 - figures["noisy"][score]["value"])
        assert 0 < lead["low"] < lead["value"] < lead["high"]


@pytest.fixture
def decisions(monkeypatch) -> Callable[[Part, np.ndarray], np.ndarray]:
    """The decisions that a part is judged by."""
    kept: list[np.ndarray] = []
    interval = intervals.macro_f1_interval
    monkeypatch.setattr(
        intervals,
        "macro_f1_interval",
        lambda truth, decided: kept.append(decided) or interval(truth, decided),
    )

    def decided(part: Part, logits: np.ndarray) -> np.ndarray:
        figures = distillation.judge(part, {"model": logits})
        scored = ~part.tunes if part.published_test else np.ones(len(part.tunes), dtype=bool)
        truth = part.held_labels[scored]
        assert figures["model"]["macro-F1"]["value"] == metrics.macro_f1(truth, kept[-1])
        return kept[-1]

    return decided


@pytest.mark.parametrize("half", [True, False])
def test_the_labels_of_a_half_decide_on_the_other_half_alone(part, decisions, half):
    logits = noisy(part.held_labels)
    before, flipped = decisions(part, logits), part.held_labels.copy()
    own = part.tunes == half
    flipped[own] = 1 - flipped[own]
    after = decisions(replace(part, held_labels=flipped), logits)
    assert (after[own] == before[own]).all()
    assert (after[~own] != before[~own]).any()


def test_of_a_published_test_validation_alone_decides(part, decisions):
    part = replace(part, published_test=True)
    logits = noisy(part.held_labels)
    before = decisions(part, logits)
    assert before.shape == (40, 2), "validation is not scored"
    for half, changes in ((False, False), (True, True)):
        flipped = part.held_labels.copy()
        flipped[part.tunes == half] = 1 - flipped[part.tunes == half]
        after = decisions(replace(part, held_labels=flipped), logits)
        assert (after != before).any() == changes
