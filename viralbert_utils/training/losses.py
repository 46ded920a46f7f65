"""Losses for one label a text and for several, and the weights that answer rare classes.

Lesson 02 uses cross-entropy, lesson 03 the others. Sources: Lin et al. 2017, arXiv 1708.02002
(focal loss); Ridnik et al. 2021, arXiv 2009.14119 (asymmetric loss); King & Zeng 2001 (weights by
the inverse frequency).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def on_each_device(weight: Tensor | None) -> Callable[[torch.device], Tensor | None]:
    """The weights on a device, copied once: each copy would wait for the device."""
    return cache(lambda device: None if weight is None else weight.to(device))


def cross_entropy(weight: Tensor | None = None) -> Loss:
    """Mean cross-entropy of one label a text; classes count by their `weight` `(n_classes,)`."""
    there = on_each_device(weight)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, weight=there(logits.device))

    return loss


def binary_cross_entropy(pos_weight: Tensor | None = None) -> Loss:
    """Mean binary cross-entropy; positives count by `pos_weight` `(n_classes,)`."""
    there = on_each_device(pos_weight)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        weight = there(logits.device)
        return functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype), pos_weight=weight
        )

    return loss
