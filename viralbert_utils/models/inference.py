"""Logits, probabilities and text vectors of many texts, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.encoders.loading import mask_for, pad
from viralbert_utils.encoders.pooling import pool


class Texts(Protocol):
    """What can be put into batches: `settings.Encoded`, or `frozen.Cached` vectors."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        ...

    def batch(self, positions: Sequence[int], pad_id: int) -> tuple[Tensor, Tensor]:
        """Input and attention mask of the texts at some positions."""
        ...


def predict_logits(
    model: nn.Module,
    texts: list[list[int]] | Texts,
    pad_id: int,
    batch_size: int = 128,
    precision: str = "auto",
    **options: Any,
) -> Tensor:
    """Logits of encoded texts in their order `(n_texts, n_classes)`, on the CPU.

    Args:
        model: Any classifier; it computes where it is.
        texts: Token ids, or what else can be put into batches.
        pad_id: The tokenizer's id of padding.
        batch_size: Texts at once.
        precision: See `devices.precision`.
        options: Given to the model, e.g. `task="emotions"`.
    """
    return _in_batches(model, partial(model, **options), texts, pad_id, batch_size, precision)


def predict_probabilities(
    model: nn.Module, texts: list[list[int]] | Texts, pad_id: int, **options: Any
) -> np.ndarray:
    """Probability of each class, independent of the others `(n_texts, n_classes)`.

    Arguments as those of `predict_logits`.
    """
    return predict_logits(model, texts, pad_id, **options).sigmoid().numpy()


@torch.inference_mode()
def array_logits(model: nn.Module, *inputs: np.ndarray, precision: str = "auto") -> np.ndarray:
    """Logits of one batch, float32, computed where the model is; arrays in and out."""
    if model.training:  # asking every layer takes as long as a sixth of a short text
        model.eval()
    device = devices.of(model)
    with devices.computing(device, devices.precision(device, precision)):
        return model(*(torch.from_numpy(part).to(device) for part in inputs)).float().cpu().numpy()


def text_vectors(
    encoder: Any,
    rows: list[list[int]],
    pad_id: int,
    pooling: str = "mean",
    queries: Tensor | None = None,
    batch_size: int = 128,
    precision: str = "auto",
) -> Tensor:
    """Pooled vectors of an encoder as it stands `(n_texts, size)`, on the CPU."""

    def step(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = encoder(input_ids=input_ids, attention_mask=mask_for(encoder, attention_mask))[0]
        return pool(hidden, attention_mask, pooling, queries)

    return _in_batches(encoder, step, rows, pad_id, batch_size, precision)


@torch.inference_mode()
def _in_batches(
    module: nn.Module,
    step: Callable[[Tensor, Tensor], Tensor],
    texts: list[list[int]] | Texts,
    pad_id: int,
    batch_size: int,
    precision: str,
) -> Tensor:
    training = module.training
    module.eval()
    device = devices.of(module)
    dtype = devices.precision(device, precision)
    lengths = [len(row) for row in texts] if isinstance(texts, list) else texts.lengths
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])

    def prepare(positions: list[int]) -> tuple[Tensor, Tensor]:
        if isinstance(texts, list):
            return pad([texts[i] for i in positions], pad_id)
        return texts.batch(positions, pad_id)

    plan = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with devices.computing(device, dtype):
        # Copied to the CPU once, at the end: a copy waits for all that the device has been given to
        # do.
        parts = [
            step(*batch).float()
            for batch in devices.ahead((partial(prepare, positions) for positions in plan), device)
        ]
    module.train(training)
    return torch.cat(parts).cpu()[torch.argsort(torch.tensor(order))]
