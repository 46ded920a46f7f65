"""The loop: it learns, keeps the best epoch, and names what is wrong before it costs anything."""

import math
from dataclasses import replace

import pytest
import torch

from tests.utils.training.small_task import QUICK, make_data, make_model
from viralbert_utils.base.errors import DataError
from viralbert_utils.lessons.stages import Stage, fit_stages
from viralbert_utils.models import inference
from viralbert_utils.training import loop, losses
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import Encoded, Settings, Task


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {"accuracy": float((logits.argmax(1) == labels).float().mean())}


def test_learns_what_can_be_learned():
    settings = Settings(epochs=12, batch_size=16, learning_rate=5e-3, metric="accuracy")
    history = fit(
        make_model(),
        Task(make_data(), make_data(100, 1), losses.cross_entropy(), accuracy),
        settings,
    )
    assert history["accuracy"].max() > 0.8  # chance is 0.33
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 2
    assert history["best"].sum() == 1
    assert history.loc[history["best"], "accuracy"].item() == history["accuracy"].max()


def test_the_model_is_left_with_its_best_epoch():
    model = make_model()
    validation = make_data(100, 1)
    history = fit(model, Task(make_data(), validation, losses.cross_entropy()), QUICK)
    logits = inference.predict_logits(model, validation.rows, 0)
    assert float(losses.cross_entropy()(logits, validation.labels)) == pytest.approx(
        history["loss"].min(), abs=1e-6
    )


def test_same_seed_same_weights_another_seed_others():
    def weights(seed: int) -> torch.Tensor:
        model = make_model()
        settings = Settings(epochs=1, learning_rate=1e-3, seed=seed)
        fit(model, Task(make_data(), make_data(50, 1), losses.cross_entropy()), settings)
        return model.head.weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_accumulated_steps_are_one_large_step(monkeypatch):
    """With plain gradient descent the size of a gradient shows; AdamW would hide a missing
    division."""
    for name in ("AdamW", "SparseAdam"):
        monkeypatch.setattr(
            loop.torch.optim, name, lambda groups, lr, **_: torch.optim.SGD(groups, lr=lr)
        )
    model = make_model(dropout=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results = []
    # The order of single batches is shuffled, so both variants see whole epochs of one or of four
    # steps.
    for options in ({"batch_size": 32}, {"batch_size": 8, "accumulate": 4}):
        model.load_state_dict(start)
        settings = Settings(epochs=3, learning_rate=0.5, bucket=0, clip_norm=0, **options)
        fit(model, Task(make_data(32), make_data(20, 1), losses.cross_entropy()), settings)
        results.append(model.head.weight.detach().clone())
    assert (results[0] - start["head.weight"]).abs().max() > 1e-2
    assert (results[0] - results[1]).abs().max() < 1e-5


def test_the_last_epoch_can_be_kept_in_place_of_the_best():
    task = Task(make_data(40), make_data(20, 1), losses.cross_entropy(), accuracy)
    best, last = make_model(), make_model()
    # A rate at which the first epoch is the best one.
    rough = Settings(epochs=4, learning_rate=0.5, head_factor=0.1)
    found = fit(best, task, rough)
    kept = fit(last, task, replace(rough, keep="last"))
    assert kept["best"].tolist() == [False, False, False, True]
    assert found.drop(columns="best").equals(kept.drop(columns="best"))
    assert found["best"].tolist() != kept["best"].tolist()
    assert not torch.equal(best.head.weight, last.head.weight)
    with pytest.raises(DataError, match="keep is 'first'; use best or last"):
        fit(best, task, replace(rough, keep="first"))


def test_an_undefined_figure_is_never_the_best():
    for metric in ("f1", "loss"):
        history = [{metric: float("nan")}, {metric: 0.2}]
        assert loop._best_epoch(history, Settings(metric=metric)) == 1


def test_patience_stops():
    settings = Settings(epochs=20, learning_rate=1e-12, patience=2)
    history = fit(
        make_model(), Task(make_data(40), make_data(20, 1), losses.cross_entropy()), settings
    )
    assert len(history) == 3


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, limit):
        before = clip(parameters, limit)
        norms.append(
            math.sqrt(sum(float(p.grad.norm()) ** 2 for p in parameters if p.grad is not None))
        )
        return before

    monkeypatch.setattr(loop.nn.utils, "clip_grad_norm_", spy)
    fit(
        make_model(),
        Task(make_data(64), make_data(20, 1), losses.cross_entropy()),
        Settings(epochs=1, clip_norm=0.01),
    )
    assert norms
    assert max(norms) < 0.0101


def test_training_mode_is_on_while_training_and_restored_by_prediction():
    modes = []
    model = make_model()
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    model.eval()
    fit(
        model,
        Task(make_data(32), make_data(20, 1), losses.cross_entropy()),
        Settings(epochs=1, batch_size=16),
    )
    assert modes == [True, True, False]


def test_the_trainer_of_transformers_computes_the_same_loss(tmp_path):
    """RuGoEmotions' route, weighted BCE through `compute_loss_func`, gives the loss of our step."""
    from transformers import Trainer, TrainingArguments
    from transformers.modeling_outputs import SequenceClassifierOutput

    from viralbert_utils.encoders.loading import pad

    rows, labels = make_data(16).rows, torch.randint(0, 2, (16, 3))
    weight = torch.tensor([1.0, 5.0, 0.5])
    model = make_model().eval()

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask, labels=None):
            return SequenceClassifierOutput(logits=self.inner(input_ids, attention_mask))

    def compute_loss(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            outputs.logits, labels.float(), pos_weight=weight
        )

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = Trainer(model=Wrapped(), args=arguments, compute_loss_func=compute_loss)
    ids, mask = pad(rows, 0)
    theirs = trainer.compute_loss(
        trainer.model, {"input_ids": ids, "attention_mask": mask, "labels": labels}
    )
    ours = losses.binary_cross_entropy(weight)(model(ids, mask), labels)
    assert float(theirs.detach()) == pytest.approx(float(ours.detach()), abs=1e-6)


def test_bad_input_is_named():
    with pytest.raises(
        ValueError, match="nothing to do with 0 training and 10 validation texts and 3 epochs"
    ):
        fit(
            make_model(),
            Task(Encoded([], torch.zeros(0)), make_data(10), losses.cross_entropy()),
            QUICK,
        )
    with pytest.raises(
        ValueError, match="metric 'f1' is not computed; there are epoch, train_loss, loss"
    ):
        fit(
            make_model(),
            Task(make_data(20), make_data(10), losses.cross_entropy()),
            Settings(epochs=1, metric="f1"),
        )
    with pytest.raises(
        FloatingPointError, match="the loss is nan at step 1; lower the learning rate"
    ):
        fit(
            make_model(),
            Task(make_data(20), make_data(10), lambda a, b: a.sum() * float("nan")),
            Settings(epochs=1),
        )


def test_a_misspelt_metric_costs_nothing():
    """It is refused before the first batch, whatever figures a task brings, and in stages before
    layers are cached."""
    touched = []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        touched.append(1)
        return losses.cross_entropy()(logits, labels)

    def only_later(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        if not logits.any():
            raise ValueError("all answers are the same")
        return accuracy(logits, labels)

    task = Task(make_data(20), make_data(10), loss, accuracy)
    there = "there are epoch, train_loss, loss, learning_rate, accuracy"
    with pytest.raises(ValueError, match=f"metric 'acuracy' is not computed; {there}"):
        fit(make_model(), task, Settings(epochs=1, metric="acuracy"))
    stages = [
        Stage(Settings(epochs=1, metric=name), 0) for name in ("both.accuracy", "both.acuracy")
    ]
    with pytest.raises(ValueError, match=r"'both.acuracy' is not computed; .*both.accuracy"):
        fit_stages(make_model(), {"both": task}, stages)
    with pytest.raises(ValueError, match="metric 'cosine' is not computed"):
        fit(make_model(), task, Settings(epochs=1, metric="cosine"))
    for wrong in ({"schedule": "cosin"}, {"sampling": "log"}, {"surgery": "pcgrat"}):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong.values()))}' is not known; use "):
            fit(make_model(), task, Settings(epochs=1, **wrong))
    assert not touched
    later = Task(make_data(20), make_data(10), loss, only_later)
    assert len(fit(make_model(), later, Settings(epochs=1, metric="accuracy"))) == 1
