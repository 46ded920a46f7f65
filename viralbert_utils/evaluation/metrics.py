"""Figures of merit: F1 in its kinds, accuracy, ROC AUC, agreement of two annotators.

Lesson 01 introduces them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def f1_per_class(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """F1 of the positive class for each class, 0 where nothing was there and nothing predicted.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        predictions: Same shape, 0/1.

    Returns:
        `(n_classes,)`.
    """
    return f1_of_counts(*weighted_counts(labels, predictions, np.ones((1, len(labels)))))[0]


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean of `f1_per_class`; classes without a positive row count as 0, as in scikit-learn."""
    return float(f1_per_class(labels, predictions).mean())


def binary_macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean over classes of the F1 of both answers, yes and no: the figure of the CEDR papers."""
    return float(
        (f1_per_class(labels, predictions) + f1_per_class(1 - labels, 1 - predictions)).mean() / 2
    )


def one_hot(values: np.ndarray, classes: list) -> np.ndarray:
    """Single labels as a 0/1 matrix `(n_texts, len(classes))`, for the same metrics."""
    return (np.asarray(values)[:, None] == np.asarray(classes)[None, :]).astype(np.int8)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of equal entries."""
    return float(np.mean(labels == predictions))


def mean_roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean ROC AUC over the classes that have both positive and negative rows.

    Args:
        labels: `(n_texts, n_classes)` or, for one class, `(n_texts,)`; 0/1.
        scores: Same shape.

    Raises:
        ValueError: No class has both.
    """
    from scipy.stats import rankdata  # heavy as well

    labels, scores = labels.reshape(len(labels), -1), scores.reshape(len(scores), -1)
    positives = labels.sum(axis=0, dtype=float)
    usable = (positives > 0) & (positives < len(labels))
    if not usable.any():
        raise ValueError("ROC AUC needs a class with both positive and negative rows; none has")
    # The share of (positive, negative) pairs in the right order, from the ranks of the positives
    # (Mann & Whitney 1947). All classes at once: resampling calls this a thousand times.
    n_pairs = positives * (len(labels) - positives)
    rank_sums = (rankdata(scores, axis=0) * labels).sum(axis=0)
    areas = (rank_sums - positives * (positives + 1) / 2)[usable] / n_pairs[usable]
    return float(areas.mean())


def mean_over_runs(metric: Callable[..., float]) -> Callable[..., float]:
    """A metric averaged over several trainings, which are the last axis of the scores."""

    def over_runs(labels: np.ndarray, scores: np.ndarray) -> float:
        return float(np.mean([metric(labels, scores[..., run]) for run in range(scores.shape[-1])]))

    return over_runs


def weighted_counts(
    labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted true, label and predicted positives: each `(n_resamples, n_classes)`."""
    y, p = labels.astype(np.float32), predictions.astype(np.float32)
    return weights @ (y * p), weights @ y, weights @ p


def f1_of_counts(
    true_positives: np.ndarray, positives: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
    """F1 of each class from its counts `(..., n_classes)`; 0 for a class that is nowhere."""
    return 2 * true_positives / np.maximum(positives + predicted, 1e-9)
