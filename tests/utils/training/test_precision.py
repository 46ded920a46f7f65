"""Training in half precision: it learns, goes on after a stop, and no small gradient is lost."""

import numpy as np
import pytest
import torch

from tests import tiny
from viralbert_utils.base import devices
from viralbert_utils.lessons import frozen
from viralbert_utils.models import inference
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import loop, losses, surgery
from viralbert_utils.training.settings import Encoded, Settings, Task


def little_task(n: int = 96) -> tuple[PooledClassifier, Task]:
    torch.manual_seed(0)
    encoder = tiny.bert(40, 16)
    rows = [[1, 5 + k % 3, 10 + k % 7, 2] for k in range(n)]
    labels = torch.nn.functional.one_hot(torch.arange(n) % 3, 3)
    encoded = Encoded(rows, labels)
    return PooledClassifier(encoder, 3, train_embeddings=False), Task(
        encoded, encoded, losses.binary_cross_entropy()
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_and_goes_on_after_a_stop(precision, tmp_path):
    how = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "warmup": 0}
    settings = Settings(**how, precision=precision)
    model, task = little_task()
    history = loop.fit(model, task, settings)
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    exact, _ = little_task()
    loop.fit(exact, task, Settings(**how))
    assert not torch.equal(exact.head.weight, model.head.weight), (
        "it was computed in another precision"
    )

    cut, _ = little_task()
    broken = Task(task.train, task.validation, stopping_after(2, task.loss))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(cut, broken, settings, checkpoint=tmp_path / "c.pt")
    again, _ = little_task()
    assert loop.fit(again, task, settings, checkpoint=tmp_path / "c.pt").equals(history)
    assert torch.equal(again.head.weight, model.head.weight)


def test_gradients_that_float16_rounds_to_zero_arrive():
    model, task = little_task()
    tiny = Task(
        task.train, task.validation, lambda logits, labels: task.loss(logits, labels) * 1e-6
    )
    before = model.encoder.encoder.layer[0].output.dense.weight.clone()
    settings = Settings(epochs=1, learning_rate=1e-2, warmup=0, precision="float16", weight_decay=0)
    loop.fit(model, tiny, settings)
    moved = (model.encoder.encoder.layer[0].output.dense.weight != before).float().mean()
    assert moved > 0.9, "without loss scaling nearly all of these gradients are zero"


@pytest.mark.parametrize(("saved", "resumed"), [("float32", "float16"), ("float16", "float32")])
def test_another_card_goes_on_with_a_checkpoint(monkeypatch, saved, resumed, tmp_path):
    """`auto` means another precision there; the loss scaler starts anew where the first run had
    none."""
    settings = Settings(epochs=2, batch_size=16, learning_rate=1e-3)
    model, task = little_task()
    monkeypatch.setenv(devices.PRECISION, saved)
    half = Task(task.train, task.validation, stopping_after(1, task.loss))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(model, half, settings, checkpoint=tmp_path / "c.pt")
    monkeypatch.setenv(devices.PRECISION, resumed)
    again, _ = little_task()
    assert len(loop.fit(again, task, settings, checkpoint=tmp_path / "c.pt")) == 2


def stopping_after(n_epochs: int, loss: losses.Loss) -> losses.Loss:
    """The loss, until the evaluation of the epoch after so many: then the power is cut."""
    calls = []

    def cut(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.extend([1] * (not logits.requires_grad))
        if len(calls) > n_epochs:
            raise KeyboardInterrupt
        return loss(logits, labels)

    return cut


@pytest.mark.parametrize("name", ["pcgrad", "gradvac", "imtl-g", "upgrad"])
def test_a_step_that_overflows_spoils_no_surgery(name):
    """Float16 overflows now and then; the step is skipped, and the next one is projected as if it
    had not been."""
    weights = torch.nn.Parameter(torch.zeros(2))
    found = {}
    for spoilt in (True, False):
        gradients = surgery.TaskGradients([weights], ["a", "b"], name)
        for first in ([torch.inf] if spoilt else []) + [1.0]:
            for task, gradient in (("a", [first, 0.2]), ("b", [-1.0, 0.5])):
                with gradients.of(task):
                    (weights * torch.tensor(gradient)).sum().backward()
            cosine = gradients.combine()
            assert torch.isfinite(weights.grad).all() == (first == 1.0), (
                "the scaler sees what to skip"
            )
            found[spoilt], weights.grad = weights.grad, None
        assert float(cosine) == pytest.approx(-0.9 / (1.04 * 1.25) ** 0.5, abs=1e-5)
    assert torch.allclose(found[True], found[False])


def test_frozen_layers_and_evaluation_follow_the_precision(tmp_path):
    model, task = little_task()
    found = {}
    for precision in ("float32", "bfloat16"):
        vectors = frozen.cache(model, task.train, 0, tmp_path, precision=precision).vectors
        found[precision] = (
            vectors,
            inference.predict_logits(model, task.train.rows, 0, precision=precision),
        )
    assert len(list(tmp_path.iterdir())) == 2, (
        "vectors of one precision are not taken for those of another"
    )
    for exact, near in zip(*found.values(), strict=True):
        difference = np.abs(
            np.asarray(exact, dtype=np.float32) - np.asarray(near, dtype=np.float32)
        )
        assert 0 < difference.max() < 0.1
