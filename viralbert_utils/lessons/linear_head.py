"""A linear classifier on an encoder's layers: answers out of fold, and their history over epochs
(lesson 08)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from viralbert_utils.base import devices, tokens
from viralbert_utils.encoders import loading, pooling
from viralbert_utils.evaluation import thresholds
from viralbert_utils.lessons.label_errors import FitPredict


@torch.no_grad()
def layer_vectors(
    tokenizer: Any, encoder: Any, texts: Sequence[str], max_length: int = 64
) -> Tensor:
    """Word vectors and all layers of an encoder, each averaged over a text's tokens, side by side.

    Args:
        tokenizer: From `loading.load_encoder`.
        encoder: Likewise; in evaluation mode.
        texts: Any strings.
        max_length: Tokens; longer texts are cut.

    Returns:
        `(n_texts, (n_layers + 1) * hidden_size)`, on the CPU; the last layer stands last.
    """
    device = devices.of(encoder)
    ids = tokens.encode(tokenizer, list(texts), max_length)
    vectors = torch.empty(
        len(ids), (encoder.config.num_hidden_layers + 1) * encoder.config.hidden_size
    )
    plan = tokens.batches([len(row) for row in ids])
    prepare = (
        partial(loading.pad, [ids[i] for i in some], tokenizer.pad_token_id) for some in plan
    )
    with devices.computing(device, devices.precision(device)):
        for some, (batch, mask) in zip(plan, devices.ahead(prepare, device), strict=True):
            seen = loading.mask_for(encoder, mask)
            layers = encoder(batch, attention_mask=seen, output_hidden_states=True).hidden_states
            vectors[some] = (
                torch.cat([pooling.pool(hidden, mask, "mean") for hidden in layers], dim=1)
                .float()
                .cpu()
            )
    return vectors


def out_of_fold(
    fit_predict: FitPredict, labels: np.ndarray, n_folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Probabilities of each row by a model that was fitted without it, `(n_texts, n_classes)`.

    Args:
        fit_predict: Fits on the rows at some positions, and gives the probabilities of the rows at
            others.
        labels: `(n_texts, n_classes)`, 0/1; rows are dealt out by their rarest label, so that every
            fold has its share.
        n_folds: Models that are fitted.
        seed: Another seed deals otherwise.
    """
    fold = thresholds.folds(labels, n_folds, seed)
    probabilities = np.empty(labels.shape)
    for k in range(n_folds):
        probabilities[fold == k] = fit_predict(np.flatnonzero(fold != k), np.flatnonzero(fold == k))
    return probabilities


def head_history(
    vectors: Tensor,
    labels: np.ndarray,
    others: Tensor,
    n_epochs: int = 15,
    dropout: float = 0.0,
    train_mode: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """What a linear head over an encoder's frozen vectors thinks of other texts after each epoch.

    Seconds for some thousand texts, so that cross-validation and over-fitting cost nothing. It
    computes on the CPU: a GPU would not be faster at steps this small.

    Args:
        vectors: `(n_texts, size)`, to learn from; standardised here.
        labels: `(n_texts, n_classes)`, 0/1.
        others: `(n_others, size)`; the same vectors, to watch training rows.
        n_epochs: Passes over the texts, in batches of 64.
        dropout: Share of each vector's numbers that a step leaves out.
        train_mode: False forgets `head.train()`: then there is no dropout, and no error says so.
        seed: Decides on order and dropout.

    Returns:
        Probabilities `(n_epochs, n_others, n_classes)`.
    """
    mean, spread = vectors.mean(dim=0), vectors.std(dim=0) + 1e-6
    x, watched = (vectors - mean) / spread, (others - mean) / spread
    y = torch.from_numpy(labels).float()
    history = []
    with torch.random.fork_rng(devices=[]), _one_core():
        torch.manual_seed(seed)
        linear = nn.Linear(x.shape[1], y.shape[1])
        nn.init.zeros_(linear.weight)
        linear.bias.data = torch.logit(y.mean(dim=0), eps=1e-3)
        head = nn.Sequential(nn.Dropout(dropout), linear)
        optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
        for _ in range(n_epochs):
            head.train(train_mode)
            for batch in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(head(x[batch]), y[batch]).backward()
                optimiser.step()
            head.eval()
            with torch.no_grad():
                history.append(head(watched).sigmoid().double().numpy())
    return np.stack(history)


@contextmanager
def _one_core() -> Iterator[None]:
    """Steps this small take several cores longer than one: they wait for each other, and beside
    other work for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
