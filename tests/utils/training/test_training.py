import math
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny
from viralbert_utils.base.errors import DataError
from viralbert_utils.lessons.stages import Stage, fit_stages
from viralbert_utils.models import inference, storage
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import batches, checkpoints, loop, losses
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import (
    Encoded,
    Settings,
    Task,
    cosine_with_warmup,
    make_optimisers,
)


def make_model(n_classes: int = 3, **options) -> PooledClassifier:
    torch.manual_seed(1)
    encoder = tiny.bert(50)
    return PooledClassifier(encoder, n_classes, **options)


def make_data(n: int = 240, seed: int = 0) -> Encoded:
    """The class is the token that stands somewhere in a random text."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    rows = []
    for label in labels:
        row = rng.integers(10, 50, rng.integers(3, 20)).tolist()
        row[int(rng.integers(len(row)))] = int(label) + 3
        rows.append([1, *row, 2])
    return Encoded(rows, torch.tensor(labels))


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {"accuracy": float((logits.argmax(1) == labels).float().mean())}


QUICK = Settings(epochs=3, batch_size=16, learning_rate=5e-3, seed=4)


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


@pytest.mark.parametrize("killed_in_epoch", [2, 3])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, killed_in_epoch):
    whole = make_model()
    expected = fit(whole, Task(make_data(), make_data(50, 1), losses.cross_entropy()), QUICK)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    calls = []

    def power_cut(logits, labels):
        if not torch.is_grad_enabled() or not logits.requires_grad:
            calls.append(1)
            if len(calls) == killed_in_epoch:
                raise KeyboardInterrupt
        return losses.cross_entropy()(logits, labels)

    with pytest.raises(KeyboardInterrupt):
        fit(
            make_model(),
            Task(make_data(), make_data(50, 1), power_cut),
            QUICK,
            checkpoint=checkpoint,
        )
    torch.rand(7)  # whatever happens in between
    again = make_model()
    history = fit(
        again,
        Task(make_data(), make_data(50, 1), losses.cross_entropy()),
        QUICK,
        checkpoint=checkpoint,
    )
    assert history.equals(expected)
    for (name, a), (_, b) in zip(
        whole.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    checkpoint = tmp_path / "c.pt"
    fit(
        make_model(),
        Task(make_data(40), make_data(20, 1), losses.cross_entropy()),
        Settings(epochs=1),
        checkpoint=checkpoint,
    )
    with pytest.raises(
        ValueError, match=r"other settings \(epochs, learning_rate\); keep them, or give"
    ):
        fit(
            make_model(),
            Task(make_data(40), make_data(20, 1), losses.cross_entropy()),
            Settings(epochs=2, learning_rate=1e-3),
            checkpoint=checkpoint,
        )


@pytest.mark.parametrize(
    "figure", [np.float64(0.5), np.float32(0.5), torch.tensor(0.5), np.mean([0, 1]), True]
)
def test_figures_of_any_library_are_plain_numbers_in_a_checkpoint(tmp_path, figure):
    task = Task(
        make_data(40),
        make_data(20, 1),
        losses.cross_entropy(),
        lambda logits, labels: {"f1": figure},
    )
    first = fit(make_model(), task, Settings(epochs=1, metric="f1"), checkpoint=tmp_path / "c.pt")
    again = fit(make_model(), task, Settings(epochs=1, metric="f1"), checkpoint=tmp_path / "c.pt")
    assert again.equals(first)
    assert first["f1"].tolist() == [float(figure)]


def test_a_checkpoint_takes_the_numbers_of_numpy(tmp_path):
    row = {
        "epoch": np.int64(1),
        "f1": np.float32(0.5),
        "best": np.bool_(True),
        "name": np.str_("кот"),
        "each": np.array([0.25, 0.5]),
        "pair": (np.float64(0.5), None),
    }
    checkpoints.write_checkpoint(tmp_path / "c.pt", {"history": [row], np.int64(3): torch.ones(1)})
    read = checkpoints.read_checkpoint(tmp_path / "c.pt", {"history"})
    plain = {
        "epoch": 1,
        "f1": 0.5,
        "best": True,
        "name": "кот",
        "each": [0.25, 0.5],
        "pair": (0.5, None),
    }
    assert read == {"history": [plain], 3: torch.ones(1)}
    assert {type(value) for value in read["history"][0].values()} == {
        int,
        float,
        bool,
        str,
        list,
        tuple,
    }


def test_a_checkpoint_says_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "run" / "c.pt"
    checkpoints.write_checkpoint(
        path, {"model": {"a": torch.arange(5000.0)}, "history": [{"f1": 0.5}]}
    )
    assert os.listdir(path.parent) == ["c.pt"]
    assert checkpoints.read_checkpoint(path, {"model", "history"})["history"] == [{"f1": 0.5}]
    with pytest.raises(DataError, match="no checkpoint of this kind of training: plan missing"):
        checkpoints.read_checkpoint(path, {"plan"})
    whole = path.read_bytes()
    for at in (0.3, 0.6, 0.8):
        path.write_bytes(
            whole[: (n := int(at * len(whole)))] + bytes([whole[n] ^ 4]) + whole[n + 1 :]
        )
        with pytest.raises(DataError, match=r"is damaged .*; delete it"):
            checkpoints.read_checkpoint(path, {"model"})
    for content in (b"", whole[:-30], pickle.dumps({"model": 1})):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is damaged .*; delete it"):
            checkpoints.read_checkpoint(path, {"model"})
    torch.save({"model": np.float64(1.0)}, path)  # nothing is lost: another version may read it
    with pytest.raises(
        DataError, match=r"is whole, but no checkpoint that can be read here .* keep it"
    ):
        checkpoints.read_checkpoint(path, {"model"})


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


def test_a_checkpoint_of_other_data_or_another_model_is_refused(tmp_path):
    checkpoint = tmp_path / "c.pt"
    settings = Settings(epochs=1)
    fit(
        make_model(),
        Task(make_data(40), make_data(20, 1), losses.cross_entropy()),
        settings,
        checkpoint=checkpoint,
    )
    for model, train in (
        (make_model(), make_data(41)),
        (make_model(pooling="max"), make_data(40)),
        (make_model(4), make_data(40)),
    ):
        with pytest.raises(ValueError, match=r"other settings \(data or model\)"):
            fit(
                model,
                Task(train, make_data(20, 1), losses.cross_entropy()),
                settings,
                checkpoint=checkpoint,
            )
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is damaged .*; delete it"):
        fit(
            make_model(),
            Task(make_data(40), make_data(20, 1), losses.cross_entropy()),
            settings,
            checkpoint=checkpoint,
        )


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


def test_a_checkpoint_from_before_a_setting_was_known_goes_on(tmp_path):
    task = Task(make_data(40), make_data(20, 1), losses.cross_entropy())
    fit(make_model(), task, QUICK, checkpoint=tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    del state["settings"]["keep"]
    torch.save(state, tmp_path / "c.pt")
    assert len(fit(make_model(), task, QUICK, checkpoint=tmp_path / "c.pt")) == QUICK.epochs
    with pytest.raises(DataError, match=r"other settings \(keep\)"):
        fit(make_model(), task, replace(QUICK, keep="last"), checkpoint=tmp_path / "c.pt")


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


def test_frozen_embeddings_stay_and_cost_no_optimiser_state():
    model = make_model(train_embeddings=False)
    before = model.encoder.get_input_embeddings().weight.clone()
    fit(model, Task(make_data(64), make_data(20, 1), losses.cross_entropy()), QUICK)
    assert torch.equal(model.encoder.get_input_embeddings().weight, before)
    (optimiser,) = make_optimisers(model, QUICK)
    assert all(p.requires_grad for group in optimiser.param_groups for p in group["params"])


def test_optimisers_divide_the_parameters_among_them():
    settings = Settings(learning_rate=1e-3, weight_decay=0.1, head_factor=5, embedding_factor=2)
    model = make_model()
    dense, sparse = make_optimisers(model, settings)
    held = [
        p
        for optimiser in (dense, sparse)
        for group in optimiser.param_groups
        for p in group["params"]
    ]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert sparse.param_groups[0]["params"] == [model.encoder.get_input_embeddings().weight]
    assert sparse.param_groups[0]["lr"] == 2e-3
    for group in dense.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    heads = [group for group in dense.param_groups if group["lr"] == 5e-3]
    assert sorted(tuple(p.shape) for group in heads for p in group["params"]) == [
        (3,),
        (3, 16),
        (16,),
        (16,),
    ]


def test_only_word_vectors_that_were_read_move():
    model = make_model()
    before = model.encoder.get_input_embeddings().weight.clone()
    train = make_data(64)
    fit(model, Task(train, make_data(20, 1), losses.cross_entropy()), QUICK)
    moved = (
        (model.encoder.get_input_embeddings().weight != before)
        .any(dim=1)
        .nonzero()
        .flatten()
        .tolist()
    )
    assert moved == sorted({token for row in train.rows for token in row})


def batches_of(lengths: list[int], batch_size: int, bucket: int, seed: int) -> list[list[int]]:
    settings = Settings(batch_size=batch_size, bucket=bucket, seed=seed)
    return [step[0][1] for step in batches.mixed_batches({"": lengths}, settings, 0)]


@pytest.mark.parametrize("bucket", [0, 1, 7])
def test_each_text_stands_in_one_batch(bucket):
    lengths = np.random.default_rng(0).integers(1, 60, 203).tolist()
    plan = batches_of(lengths, 8, bucket, seed=1)
    assert sorted(p for batch in plan for p in batch) == list(range(203))
    assert max(map(len, plan)) == 8
    assert plan != batches_of(lengths, 8, bucket, seed=2)


def test_bucketing_saves_padding():
    lengths = np.random.default_rng(0).integers(3, 60, 2000).tolist()

    def positions(bucket: int) -> int:
        return sum(
            len(batch) * max(lengths[p] for p in batch)
            for batch in batches_of(lengths, 16, bucket, 0)
        )

    assert positions(50) < 1.05 * sum(lengths)
    assert positions(0) > 1.5 * sum(lengths)


def test_schedule_rises_and_falls():
    factors = [cosine_with_warmup(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.001


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
