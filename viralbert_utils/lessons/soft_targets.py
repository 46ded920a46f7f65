"""Teachers and soft targets: how one network learns what several models know (lesson 03).

A teacher is a model that has been trained before. Its probabilities say more than a label does: of
two texts that carry the same label, which one carries it more clearly, and what else comes near.
They must come from rows that the teacher has not been trained on, or it would only repeat the
labels. Sources: Hinton, Vinyals & Dean 2015, arXiv 1503.02531 (soft targets); Clark et al. 2019,
arXiv 1907.04829 (teachers of one task each for a network of several).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit

LIMIT = 12.0  # logits beyond it are as good as certain, and would outweigh all others in a mean

NEVER_CERTAIN = 1e-5  # a probability is kept so far from 0 and 1, where logits have no end


def tfidf_logits(model: Any, texts: Sequence[str], n_classes: int) -> np.ndarray:
    """What TF-IDF with logistic regression says, as logits, which can be mixed with a network's.

    Args:
        model: A fitted pipeline of `baselines.tfidf_logistic`.
        texts: The texts to answer.
        n_classes: The last so many columns count: of a yes-or-no question the pipeline gives the
            probability of *no*, too.

    Returns:
        `(n_texts, n_classes)`.
    """
    p = model.predict_proba(list(texts))[:, -n_classes:]
    return logit(np.clip(p, NEVER_CERTAIN, 1 - NEVER_CERTAIN))


def out_of_fold(logits: Sequence[np.ndarray], fold: np.ndarray) -> np.ndarray:
    """What the teachers say of rows that they have not been trained on.

    Args:
        logits: Those of each teacher for all rows, `(n_rows, n_classes)` each; teacher `k` has been
            trained on the rows outside fold `k`.
        fold: The fold of each row `(n_rows,)`; -1 for rows that no teacher has been trained on.

    Returns:
        `(n_rows, n_classes)`: of a row in fold `k` the logits of teacher `k`, of the others the
        mean over the teachers.
    """
    clipped = np.clip(np.stack(list(logits)), -LIMIT, LIMIT)
    chosen = clipped.mean(axis=0)
    for k in range(len(clipped)):
        chosen[fold == k] = clipped[k, fold == k]
    return chosen


def match_rates(
    logits: np.ndarray, rates: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray:
    """Shift each class until its mean probability is the share of texts that carry it.

    A loss with weights for rare classes makes all their probabilities larger. A mean of two
    teachers is fair only if both mean the same by one half.

    Args:
        logits: `(n_rows, n_classes)`.
        rates: The share of the rows that carry each class `(n_classes,)`.
        rows: Whether a row counts for the mean `(n_rows,)`; all if not given.

    Returns:
        The shifted logits; those of a class with a rate of 0 or 1 stay as they are.
    """
    judged = logits if rows is None else logits[rows]
    low, high = np.full(logits.shape[1], -30.0), np.full(logits.shape[1], 30.0)
    for _ in range(60):
        middle = (low + high) / 2
        too_high = expit(judged + middle).mean(axis=0) > rates
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    return logits + np.where((rates > 0) & (rates < 1), (low + high) / 2, 0.0)


def soften(labels: np.ndarray, probabilities: np.ndarray, label_share: float = 0.4) -> np.ndarray:
    """Targets between the labels and what the teachers say, all `(n_rows, n_classes)`, float32."""
    return (label_share * labels + (1 - label_share) * probabilities).astype(np.float32)
