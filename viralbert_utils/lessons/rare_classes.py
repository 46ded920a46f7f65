"""Answers to rare classes that lesson 03 compares: losses in which easy texts fade, and weights of
positives.

Sources: Lin et al. 2017, arXiv 1708.02002 (focal loss); Ridnik et al. 2021, arXiv 2009.14119
(asymmetric loss); King & Zeng 2001 (weights by the inverse frequency).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from viralbert_utils.training.losses import Loss

WEIGHTINGS = ("none", "sqrt", "clipped", "balanced", "power")


def focal(gamma: float = 2.0) -> Loss:
    """Binary cross-entropy times `(1 - p) ** gamma`, `p` the probability given to the right answer:
    easy ones fade."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        labels = labels.to(logits.dtype)
        entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()

    return loss


def asymmetric(
    gamma_negative: float = 4.0, gamma_positive: float = 0.0, margin: float = 0.05
) -> Loss:
    """Focal loss that lets easy negatives fade faster than positives; negatives below `margin` cost
    nothing at all."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        labels = labels.to(logits.dtype)
        probability = logits.sigmoid()
        shifted = (probability - margin).clamp(min=0)
        positive = functional.logsigmoid(logits) * (1 - probability) ** gamma_positive
        negative = torch.log((1 - shifted).clamp(min=1e-8)) * shifted**gamma_negative
        return -(labels * positive + (1 - labels) * negative).mean()

    return loss


def positive_weights(labels: Tensor, how: str = "clipped", power: float = 0.3) -> Tensor | None:
    """Weights of positives in binary cross-entropy, for each class.

    Args:
        labels: `(n_texts, n_classes)`, 0/1, of the training texts.
        how: `none`; `balanced`, negatives / positives; `sqrt`, its square root; `power`, its power
            `power`; `clipped`, texts / (classes x positives) between 0.1 and 10. The last one is
            ViralBERT v2's: a formula for one label a text, which here pushes frequent classes down
            (lesson 03 measures it).
        power: Exponent for `how="power"`; 0 gives equal weights, 1 equals `balanced`.

    Returns:
        `(n_classes,)`, float32; `None` for `none`.

    Raises:
        ValueError: An unknown name.
    """
    if how not in WEIGHTINGS:
        raise ValueError(f"weighting {how!r} is not known; use {', '.join(WEIGHTINGS)}")
    if how == "none":
        return None
    n_texts, n_classes = labels.shape
    positives = labels.float().sum(dim=0).clamp(min=1)
    if how == "clipped":
        return (n_texts / (n_classes * positives)).clamp(0.1, 10)
    ratio = (n_texts - positives) / positives
    return ratio ** {"balanced": 1.0, "sqrt": 0.5, "power": power}[how]
