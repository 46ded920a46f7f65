import re

import pytest
import torch
from torch import nn
from torchjd.aggregation import PCGrad, PCGradWeighting

from viralbert_utils.training import surgery
from viralbert_utils.training.surgery import TaskGradients, pcgrad, weighting


def test_two_gradients_that_disagree_lose_what_they_oppose():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    jacobian = torch.stack([one, other])
    found = pcgrad(jacobian @ jacobian.T) @ jacobian
    projected_one = one - (one @ other) / (other @ other) * other
    projected_other = other - (one @ other) / (one @ one) * one
    torch.testing.assert_close(found, projected_one + projected_other)
    assert projected_one @ other == pytest.approx(0)


def test_gradients_that_agree_are_added():
    jacobian = torch.tensor([[1.0, 2.0], [2.0, 0.5]])
    torch.testing.assert_close(pcgrad(jacobian @ jacobian.T), torch.ones(2))


@pytest.mark.parametrize("n_tasks", [2, 3, 5])
def test_pcgrad_is_that_of_torchjd(n_tasks):
    for seed in range(20):
        jacobian = torch.randn(n_tasks, 7, generator=torch.Generator().manual_seed(seed))
        gramian = jacobian @ jacobian.T
        torch.manual_seed(seed)
        expected = PCGradWeighting()(gramian)
        torch.manual_seed(seed)
        torch.testing.assert_close(pcgrad(gramian), expected, rtol=1e-4, atol=1e-5)


def test_a_task_without_gradient_takes_nothing_away():
    torch.testing.assert_close(pcgrad(torch.tensor([[4.0, 0.0], [0.0, 0.0]])), torch.ones(2))


@pytest.mark.parametrize(
    "name", ["none", "pcgrad", "upgrad", "mgda", "imtl-g", "aligned-mtl", "dualproj", "gradvac"]
)
def test_every_named_surgery_gives_two_weights(name):
    weights = weighting(name)(torch.tensor([[2.0, -1.0], [-1.0, 3.0]]))
    assert weights.shape == (2,)
    assert torch.isfinite(weights).all()


def test_imtl_g_lies_halfway_between_two_gradients():
    gradients = torch.tensor([[2.0, 0.4, 1.0], [-1.1, 0.9, 30.0]])
    update = weighting("imtl-g")(gradients @ gradients.T) @ gradients
    halfway = torch.nn.functional.normalize(gradients).sum(0)
    assert torch.cosine_similarity(update, halfway, dim=0) == pytest.approx(1, abs=1e-5)


def test_unknown_surgeries_and_missing_solvers_are_named(monkeypatch):
    with pytest.raises(
        ValueError, match=r"surgery 'pc-grad' is not known; use none, pcgrad, upgrad"
    ):
        weighting("pc-grad")
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None)
    for name, wanted in (
        ("upgrad", "viralbert-course[surgeries]"),
        ("dualproj", "viralbert-course[surgeries]"),
        ("cagrad", "torchjd[cagrad]"),
    ):
        message = f"{name!r} needs a solver that is not installed: pip install '{wanted}', or"
        with pytest.raises(ValueError, match=re.escape(message)):
            weighting(name)
    for name in ("mgda", "imtl-g", "aligned-mtl", "gradvac"):
        assert weighting(name)(torch.eye(2)).shape == (2,)


class Two(nn.Module):
    """A shared word table and layer, and a head for each task; `extra` is touched by the first task
    only."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.words = nn.Embedding(9, 6, sparse=sparse)
        self.layer = nn.Linear(6, 5)
        self.extra = nn.Parameter(torch.ones(6))
        self.heads = nn.ModuleDict({"a": nn.Linear(5, 1), "b": nn.Linear(5, 3)})

    def forward(self, ids, task):
        vectors = self.words(ids).mean(1)
        vectors = vectors * self.extra if task == "a" else vectors
        return self.heads[task](torch.tanh(self.layer(vectors)))

    def shared(self):
        return [p for name, p in self.named_parameters() if not name.startswith("heads.")]


IDS = {
    "a": torch.tensor([[1, 2, 3], [4, 5, 6]]),
    "b": torch.tensor([[2, 3, 8], [7, 7, 1], [1, 2, 2]]),
}


def loss(model, task, rows=slice(None)):
    target = 1.0 if task == "a" else -2.0
    return (model(IDS[task][rows], task) - target).square().mean()


def dense(gradient):
    return None if gradient is None else gradient.to_dense().clone()


def expected(model, name="pcgrad"):
    """The textbook way: two whole gradients, stacked, through torchjd's aggregator."""
    parameters = model.shared()
    rows = []
    for task in IDS:
        model.zero_grad()
        loss(model, task).backward()
        rows.append(
            torch.cat(
                [
                    torch.zeros(p.numel()) if p.grad is None else dense(p.grad).flatten()
                    for p in parameters
                ]
            )
        )
    jacobian = torch.stack(rows)
    model.zero_grad()
    return (PCGrad()(jacobian) if name == "pcgrad" else jacobian.sum(0)), jacobian


def collected(model, name, **options):
    gradients = TaskGradients(model.shared(), list(IDS), name, **options)
    for task in IDS:
        with gradients.of(task):
            loss(model, task).backward()
    cosine = gradients.combine()
    return torch.cat([dense(p.grad).flatten() for p in model.shared()]), cosine


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["none", "pcgrad"])
def test_combined_gradient_is_the_textbook_one(name, sparse):
    model = Two(sparse)
    wanted, jacobian = expected(model, name)
    found, cosine = collected(model, name, measure=True)
    torch.testing.assert_close(found, wanted)
    assert cosine == pytest.approx(
        float(torch.cosine_similarity(jacobian[0], jacobian[1], dim=0)), abs=1e-6
    )
    assert cosine < 0, "the two tasks of this test must disagree, or it shows nothing"


def test_heads_keep_the_gradient_of_their_task():
    model = Two()
    collected(model, "pcgrad")
    for task in IDS:
        own = model.heads[task].weight.grad.clone()
        model.zero_grad()
        loss(model, task).backward()
        torch.testing.assert_close(own, model.heads[task].weight.grad)
        model.zero_grad()
        collected(model, "pcgrad")


def test_without_surgery_nothing_is_kept_apart():
    model = Two()
    gradients = TaskGradients(model.shared(), list(IDS), "none")
    with gradients.of("a"):
        loss(model, "a").backward()
    assert model.layer.weight.grad is not None
    assert gradients.combine() is None


def test_a_batch_of_one_task_passes_as_it_is():
    model = Two()
    gradients = TaskGradients(model.shared(), list(IDS), "pcgrad")
    with gradients.of("b"):
        loss(model, "b").backward()
    assert gradients.combine() is None
    found = model.layer.weight.grad.clone()
    assert model.extra.grad is None
    model.zero_grad()
    loss(model, "b").backward()
    torch.testing.assert_close(found, model.layer.weight.grad)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    model = Two()
    wanted, _ = expected(model)
    gradients = TaskGradients(model.shared(), list(IDS), "pcgrad")
    for rows, share_a, share_b in ((slice(0, 1), 1 / 2, 1 / 3), (slice(1, None), 1 / 2, 2 / 3)):
        for task, share in (("a", share_a), ("b", share_b)):
            with gradients.of(task):
                (share * loss(model, task, rows)).backward()
    gradients.combine()
    torch.testing.assert_close(torch.cat([dense(p.grad).flatten() for p in model.shared()]), wanted)


def test_frozen_parameters_stay_out():
    model = Two()
    model.words.weight.requires_grad_(False)
    gradients = TaskGradients(model.shared(), list(IDS), "pcgrad")
    assert len(gradients.shared) == 3
    for task in IDS:
        with gradients.of(task):
            loss(model, task).backward()
    gradients.combine()
    assert model.words.weight.grad is None


def test_a_second_update_starts_anew():
    model = Two()
    first, _ = collected(model, "pcgrad")
    gradients = TaskGradients(model.shared(), list(IDS), "pcgrad")
    for _ in range(2):
        model.zero_grad()
        for task in IDS:
            with gradients.of(task):
                loss(model, task).backward()
        gradients.combine()
    torch.testing.assert_close(torch.cat([dense(p.grad).flatten() for p in model.shared()]), first)


def test_bfloat16_computation_is_supported():
    model = Two()
    gradients = TaskGradients(model.shared(), list(IDS), "pcgrad")
    for task in IDS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(model, task)
        with gradients.of(task):
            value.backward()
    assert gradients.combine() < 0
    assert model.layer.weight.grad.dtype == torch.float32


def test_names_of_torchjd_exist():
    from torchjd import aggregation

    assert all(hasattr(aggregation, name) for name in surgery.SURGERIES.values())
