"""Training on two processes (gloo), started by torchrun once for the whole file, beside the same
training on one."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from tests import tiny
from viralbert_utils.base import devices
from viralbert_utils.evaluation import metrics
from viralbert_utils.lessons.stages import Stage, fit_stages
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier
from viralbert_utils.training import losses, processes
from viralbert_utils.training.loop import fit
from viralbert_utils.training.processes import Part
from viralbert_utils.training.settings import Encoded, Settings, Task

HEADS = {"virality": Head(("viral",), (8,), (0.0,)), "emotions": Head(("a", "b", "c"))}
SHORT = Settings(epochs=2, batch_size=16, learning_rate=3e-3, head_factor=3)


def make_encoder(dropout: float) -> BertModel:
    torch.manual_seed(1 + 5 * processes.rank())  # what counts is where the first process starts
    shares = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return tiny.bert(60, 40, n_layers=2, pooler=True, **shares)


def make_pooled(dropout: float = 0.0) -> PooledClassifier:
    return PooledClassifier(make_encoder(dropout), 3, dropout=dropout)


def make_multitask(train_embeddings: bool = True) -> MultiTaskClassifier:
    return MultiTaskClassifier(
        make_encoder(0.0), HEADS, "mean", 0.0, train_embeddings=train_embeddings
    )


def make_texts(n: int, n_classes: int, seed: int) -> Encoded:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, n_classes)) < 0.4).astype(int)
    rows = [
        [1, *rng.integers(20, 60, rng.integers(4, 20)), *(np.flatnonzero(flags) + 3), 2]
        for flags in labels
    ]
    return Encoded([list(map(int, row)) for row in rows], torch.tensor(labels))


def auc(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {"roc_auc": metrics.mean_roc_auc(labels.numpy(), logits.numpy())}


BCE = losses.binary_cross_entropy()
ONE = Task(make_texts(101, 3, 2), make_texts(33, 3, 3), BCE, auc)
# Nine virality texts in a dozen batches: many a batch has one, which only one of the processes then
# gets.
TWO = {"virality": Task(make_texts(9, 1, 0), make_texts(20, 1, 1), BCE), "emotions": ONE}


def whole_trainings(folder: Path) -> dict:
    """Every kind of training, small; the same on one process and on several."""
    found, log = {}, []
    model = make_pooled()
    found["plain"] = fit(model, ONE, SHORT, checkpoint=folder / "plain.pt")
    found["plain weights"] = model.state_dict()
    settings = replace(SHORT, surgery="pcgrad", accumulate=2, clip_norm=0.5, sampling="sqrt")
    found["pcgrad"] = fit(make_multitask(), TWO, settings, log=log)
    found["log"] = log
    found["sum"] = fit(make_multitask(), TWO, SHORT)
    stopping = replace(SHORT, epochs=9, patience=2, metric="roc_auc", learning_rate=0.01)
    found["stopped"] = fit(make_pooled(), ONE, stopping)
    stages = [Stage(replace(SHORT, surgery="pcgrad"), top_layers) for top_layers in (0, 1)]
    model = make_multitask(train_embeddings=False)
    found["stages"], _ = fit_stages(model, TWO, stages, cache_folder=folder / "cache")
    return found


def interrupted(folder: Path) -> dict:
    """With dropout: a run that is stopped in its second epoch and goes on, beside one in one
    piece."""
    whole, again, calls = make_pooled(0.2), make_pooled(0.2), []

    def power_cut(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.extend([1] * (not logits.requires_grad))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return BCE(logits, labels)

    expected = fit(whole, ONE, SHORT)
    with pytest.raises(KeyboardInterrupt):
        fit(make_pooled(0.2), replace(ONE, loss=power_cut), SHORT, checkpoint=folder / "cut.pt")
    torch.rand(3)
    history = fit(again, ONE, SHORT, checkpoint=folder / "cut.pt")
    same = all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    return {"same": same and history.equals(expected)}


def broken() -> str:
    """The message when one process alone meets a loss that is no number."""

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return BCE(logits, labels) * (math.nan if processes.rank() == 1 else 1)

    try:
        fit(make_pooled(), replace(ONE, loss=loss), SHORT)
    except FloatingPointError as error:
        return str(error)
    return ""


def work(folder: Path) -> None:
    with processes.process_group():
        found = (
            whole_trainings(folder)
            | interrupted(folder)
            | {"broken": broken(), "dropout": float(torch.rand(1))}
        )
        torch.save(found, folder / f"{processes.rank()}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        __file__,
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    done = subprocess.run(
        [*command, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    return whole_trainings(tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("kind", ["plain", "pcgrad", "sum", "stages", "stopped"])
def test_two_processes_have_the_losses_of_one(both, alone, kind):
    for found in both:
        assert list(found[kind]) == list(alone[kind])
        np.testing.assert_allclose(
            found[kind].to_numpy(float), alone[kind].to_numpy(float), rtol=0, atol=1e-5
        )
    assert both[0][kind].equals(both[1][kind]), (
        "figures that differ would stop one process and leave the other waiting"
    )


def test_training_stops_early_on_both(both):
    assert len(both[0]["stopped"]) < 9


def test_surgery_sees_the_gradients_of_whole_batches(both, alone):
    expected = [row["cosine"] for row in alone["log"]]
    assert min(expected) < -0.05, "without a conflict this shows nothing"
    for found in both:
        np.testing.assert_allclose(
            [row["cosine"] for row in found["log"]], expected, rtol=0, atol=1e-4
        )
        for ours, theirs in zip(found["log"], alone["log"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4, nan_ok=True)


def test_both_processes_hold_the_same_weights(both, alone):
    for name, tensor in both[0]["plain weights"].items():
        assert torch.equal(tensor, both[1]["plain weights"][name]), name
        torch.testing.assert_close(tensor, alone["plain weights"][name], rtol=0, atol=1e-4)


def test_a_stopped_run_goes_on_with_the_same_bits(both):
    assert [found["same"] for found in both] == [True, True]


def test_dropout_differs_between_processes(both):
    assert both[0]["dropout"] != both[1]["dropout"]


def test_a_loss_that_is_no_number_stops_both(both):
    assert {found["broken"] for found in both} == {
        "the loss is nan at step 1; lower the learning rate"
    }


def test_one_process_takes_all():
    texts = make_texts(5, 1, 0)
    part = Part(texts)
    assert part.lengths == texts.lengths
    assert part.whole(torch.arange(5.0)[:, None]).flatten().tolist() == [0, 1, 2, 3, 4]
    assert processes.part([4, 2, 7]) == [4, 2, 7]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(processes.dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(devices, "default", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    message = "2 processes for 1 GPUs; start torchrun with --nproc-per-node 1"
    with pytest.raises(ValueError, match=message), processes.process_group():
        pass


if __name__ == "__main__":
    work(Path(sys.argv[1]))
