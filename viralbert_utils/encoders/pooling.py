"""One vector a text from those of its tokens: first token, mean, maximum, attention.

Lesson 02 compares them."""

from __future__ import annotations

import torch
from torch import Tensor

from viralbert_utils.base.tokens import encode as encode

POOLINGS = ("cls", "mean", "max", "attention")


def pool(hidden: Tensor, attention_mask: Tensor, how: str, queries: Tensor | None = None) -> Tensor:
    """One vector for each text; padding plays no part.

    Args:
        hidden: `(n_texts, n_tokens, hidden_size)`.
        attention_mask: `(n_texts, n_tokens)`, 1 for tokens, 0 for padding.
        how: `cls` (the first token), `mean` or `max` over the tokens that are no padding,
            `attention` (a weighted mean for each query), or several joined by `+`, whose vectors
            then stand side by side.
        queries: `(n_queries, hidden_size)` for attention: tokens weigh by the softmax of their
            products with a query.

    Returns:
        `(n_texts, pooled_size(how, hidden_size, n_queries))`.

    Raises:
        ValueError: An unknown pooling, or attention without queries.
    """
    _check_pooling(how)
    empty = (attention_mask == 0).unsqueeze(-1)
    parts = []
    for name in how.split("+"):
        if name == "cls":
            parts.append(hidden[:, 0])
        elif name == "mean":
            parts.append(hidden.masked_fill(empty, 0).sum(dim=1) / (~empty).sum(dim=1).clamp(min=1))
        elif name == "max":
            parts.append(hidden.masked_fill(empty, float("-inf")).amax(dim=1))
        elif queries is None:
            raise ValueError("pooling 'attention' needs queries (n_queries, hidden_size)")
        else:
            weights = (hidden @ queries.T).masked_fill(empty, float("-inf")).softmax(dim=1)
            parts.append((weights.transpose(1, 2) @ hidden).flatten(start_dim=1))
    return torch.cat(parts, dim=1)


def pooled_size(how: str, hidden_size: int, n_queries: int = 0) -> int:
    """Length of the vector that `pool` gives."""
    _check_pooling(how)
    return sum(hidden_size * (n_queries if name == "attention" else 1) for name in how.split("+"))


def _check_pooling(how: str) -> None:
    if not set(how.split("+")) <= set(POOLINGS):
        raise ValueError(
            f"pooling {how!r} is not known; use {', '.join(POOLINGS)}, or several joined by '+'"
        )
