"""A stopped training goes on with the same bits, and a checkpoint says what is wrong with it."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.utils.training.small_task import QUICK, make_data, make_model
from viralbert_utils.base.errors import DataError
from viralbert_utils.training import checkpoints, losses
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import Settings, Task


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


def test_a_checkpoint_from_before_a_setting_was_known_goes_on(tmp_path):
    task = Task(make_data(40), make_data(20, 1), losses.cross_entropy())
    fit(make_model(), task, QUICK, checkpoint=tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    del state["settings"]["keep"]
    torch.save(state, tmp_path / "c.pt")
    assert len(fit(make_model(), task, QUICK, checkpoint=tmp_path / "c.pt")) == QUICK.epochs
    with pytest.raises(DataError, match=r"other settings \(keep\)"):
        fit(make_model(), task, replace(QUICK, keep="last"), checkpoint=tmp_path / "c.pt")
