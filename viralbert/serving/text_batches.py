"""Encoded texts answered in batches of like length, by a trained or an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from viralbert_utils.base.tokens import BATCH_TOKENS, batches, pad


def in_batches(
    step: Callable[..., np.ndarray],
    rows: Sequence[Sequence[int]],
    pad_id: int,
    *beside: np.ndarray,
    n_tokens: int = BATCH_TOKENS,
) -> np.ndarray:
    """What `step` gives for ids, mask and what stands `beside` each row, batch by batch, in the
    order of the rows.

    Args:
        step: Takes arrays of one batch, gives an array with as many rows.
        rows: Token ids, at least one row.
        pad_id: The tokenizer's id of padding.
        beside: Arrays with a row for each of the rows, e.g. the table's columns of a hybrid.
        n_tokens: See `batches`.
    """
    plan = batches([len(row) for row in rows], n_tokens)
    parts = [
        step(*pad([rows[i] for i in positions], pad_id), *(part[positions] for part in beside))
        for positions in plan
    ]
    return np.concatenate(parts)[np.argsort(np.concatenate(plan))]
