"""What moves in a step: frozen embeddings, the optimisers of each part, the schedule."""

import pytest
import torch

from tests.utils.training.small_task import QUICK, make_data, make_model
from viralbert_utils.training import losses
from viralbert_utils.training.loop import fit
from viralbert_utils.training.settings import Settings, Task, cosine_with_warmup, make_optimisers


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


def test_schedule_rises_and_falls():
    factors = [cosine_with_warmup(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.001
