"""Decision thresholds for multi-label scores: one for all classes, or one for each.

Tuned on rows of their own, never on those that are scored. For each class the best threshold is found exactly by one
sort of its scores (Pillai, Fumera & Roli 2013 call it S-Cut). Lesson 01 uses it for the baseline.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit


def decide(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """The one decision rule of the course: `score >= threshold`.

    Args:
        scores: `(n_texts, n_classes)`, probabilities or any scores.
        threshold: A number, or one for each class `(n_classes,)`.

    Returns:
        `(n_texts, n_classes)`, int8.
    """
    return (scores >= threshold).astype(np.int8)


def best_per_class(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For each class the threshold with the highest F1, exactly.

    Cutting below the k-th highest score predicts k rows, so F1 of all cuts is 2 TP(k) / (k + positives); equal scores
    are cut together. The threshold lies midway to the next lower score. A class without positives gets infinity
    (never predicted).

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        scores: Same shape, finite.

    Returns:
        `(n_classes,)`.

    Raises:
        ValueError: Shapes differ, or a score is not finite.
    """
    _check(labels, scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    true_positives = np.cumsum(np.take_along_axis(labels, order, axis=0), axis=0)
    positives = labels.sum(axis=0)
    f1 = 2 * true_positives / (np.arange(1, len(scores) + 1)[:, None] + positives)
    # A cut between equal scores cannot be made by any threshold.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1
    cut = f1.argmax(axis=0)
    columns = np.arange(scores.shape[1])
    here = ranked[cut, columns]
    below = np.where(cut + 1 < len(scores), ranked[np.minimum(cut + 1, len(scores) - 1), columns], here)
    middle = (here + below) / 2
    # Midway between two neighbouring floats may round down to the lower one, which would let its rows in.
    return np.where(positives > 0, np.where(middle > below, middle, here), np.inf)


def best_global(labels: np.ndarray, scores: np.ndarray, n_candidates: int = 200) -> float:
    """The one threshold with the highest macro-F1 among `n_candidates` quantiles of the scores.

    Raises:
        ValueError: Shapes differ, or a score is not finite.
    """
    _check(labels, scores)
    # Labels are rare, so most candidates are high quantiles; the rest cover the lower half evenly.
    ranks = np.concatenate([1 - np.geomspace(1e-4, 0.5, n_candidates), np.linspace(0, 0.5, n_candidates // 4)])
    candidates = np.unique(np.quantile(scores, ranks))
    positives = labels.sum(axis=0)
    best, best_f1 = float(candidates[0]), -1.0
    for threshold in candidates:
        predicted = scores >= threshold
        f1 = (2 * (predicted & (labels > 0)).sum(axis=0) / np.maximum(predicted.sum(axis=0) + positives, 1)).mean()
        if f1 > best_f1:
            best, best_f1 = float(threshold), float(f1)
    return best


def shrunk(labels: np.ndarray, probabilities: np.ndarray, strength: float = 10.0) -> np.ndarray:
    """Thresholds per class, drawn towards the one for all: the fewer positives a class has, the more.

    A threshold tuned on five positives is mostly chance. On the logit scale, with `n_k` positives,
    `w = n_k / (n_k + strength)` and `t = w * t_class + (1 - w) * t_all`.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        probabilities: Same shape, in 0 .. 1.
        strength: Number of positives at which a class's own threshold counts half.

    Returns:
        `(n_classes,)`.

    Raises:
        ValueError: Shapes differ, or a value is no probability.
    """
    _check(labels, probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError(f"expected probabilities; found {probabilities.min():.3g} to {probabilities.max():.3g}")
    one = best_global(labels, probabilities)
    each = best_per_class(labels, probabilities)
    positives = labels.sum(axis=0)
    weight = positives / (positives + strength)
    own, shared = (logit(np.clip(t, 1e-6, 1 - 1e-6)) for t in (np.where(np.isfinite(each), each, one), one))
    return expit(weight * own + (1 - weight) * shared)


def _check(labels: np.ndarray, scores: np.ndarray) -> None:
    if labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must have the same shape")
    if not scores.size:
        raise ValueError("no rows to tune a threshold on")
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(f"score of row {row}, class {column} is {scores[row, column]}; all must be finite numbers")
