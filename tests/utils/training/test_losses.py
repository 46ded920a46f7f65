import pytest
import torch
from torch.nn import functional

from viralbert_utils.lessons import rare_classes
from viralbert_utils.training import losses

LOGITS = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-2.0, -0.5]])
LABELS = torch.tensor([[1, 0], [0, 1], [1, 1]])


def plain() -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(LOGITS, LABELS.float())


def test_focal_and_asymmetric_losses_become_cross_entropy_without_their_factors():
    assert rare_classes.focal(0)(LOGITS, LABELS) == pytest.approx(float(plain()))
    assert rare_classes.asymmetric(0, 0, 0)(LOGITS, LABELS) == pytest.approx(
        float(plain()), abs=1e-6
    )


def test_focal_loss_by_hand():
    right = torch.where(LABELS == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    assert rare_classes.focal(2)(LOGITS, LABELS) == pytest.approx(
        float((-((1 - right) ** 2) * right.log()).mean())
    )


def test_asymmetric_loss_forgets_easy_negatives_only():
    easy = torch.tensor([[-4.0]])
    assert rare_classes.asymmetric()(easy, torch.tensor([[0]])) == 0
    assert rare_classes.asymmetric()(easy, torch.tensor([[1]])) == pytest.approx(4.018, abs=0.01)


def test_extreme_logits_stay_finite():
    extreme, labels = torch.tensor([[60.0, -60.0]]), torch.tensor([[0, 1]])
    for loss in (rare_classes.focal(), rare_classes.asymmetric(), losses.binary_cross_entropy()):
        logits = extreme.clone().requires_grad_()
        value = loss(logits, labels)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()


def test_weights_of_positives():
    labels = torch.zeros(100, 4)
    for column, n in enumerate((50, 10, 1, 0)):
        labels[:n, column] = 1
    assert rare_classes.positive_weights(labels, "none") is None
    torch.testing.assert_close(
        rare_classes.positive_weights(labels, "balanced"), torch.tensor([1.0, 9.0, 99.0, 99.0])
    )
    torch.testing.assert_close(
        rare_classes.positive_weights(labels, "sqrt"), torch.tensor([1.0, 3.0, 99**0.5, 99**0.5])
    )
    torch.testing.assert_close(
        rare_classes.positive_weights(labels, "clipped"), torch.tensor([0.5, 2.5, 10.0, 10.0])
    )
    torch.testing.assert_close(rare_classes.positive_weights(labels, "power", 0), torch.ones(4))
    with pytest.raises(ValueError, match="weighting 'inverse' is not known; use none, sqrt"):
        rare_classes.positive_weights(labels, "inverse")


def test_bce_is_torchs_and_weighted():
    logits, labels = torch.randn(6, 4), (torch.rand(6, 4) > 0.5).long()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    per_entry = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, labels.float(), reduction="none"
    )
    weighted = (per_entry * torch.where(labels > 0, weight, 1.0)).mean()
    assert losses.binary_cross_entropy(weight)(logits, labels) == pytest.approx(float(weighted))
    assert losses.binary_cross_entropy()(logits, labels) == pytest.approx(float(per_entry.mean()))


def test_class_weights_are_those_of_torch():
    logits, labels = torch.randn(20, 3), torch.randint(0, 3, (20,))
    weight = torch.tensor([1.0, 5.0, 0.5])
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (each * weight[labels]).sum() / weight[labels].sum()
    assert losses.cross_entropy(weight)(logits, labels) == pytest.approx(float(expected))
