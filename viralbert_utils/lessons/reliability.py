"""How far probabilities are calibrated, and the mildest remedy, one temperature for all classes.

Lesson 04 draws the diagrams. Source: Guo et al. 2017 (temperature, expected calibration error).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from viralbert_utils.evaluation.calibration import Calibration, log_loss, proportion_interval
from viralbert_utils.evaluation.thresholds import check


def temperature(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """One number for all classes that logits are divided by; no decision at 0.5 changes by it.

    Args:
        labels: `(n_texts, n_classes)`, 0/1, of rows that the model was not trained on.
        logits: Same shape, finite.

    Raises:
        DataError: Shapes differ, no rows, or a logit is not finite.
    """

    check(labels, logits)
    # Bounded: where logits tell labels apart without error, colder is always better.
    optimum = minimize_scalar(
        lambda log_slope: log_loss(labels, np.exp(log_slope) * logits), bounds=(-5, 5)
    )
    n_classes = logits.shape[1]
    return Calibration(np.full(n_classes, np.exp(optimum.x)), np.zeros(n_classes))


def reliability(
    labels: np.ndarray,
    probabilities: np.ndarray,
    n_bins: int = 10,
    equal_counts: bool = False,
    level: float = 0.95,
) -> pd.DataFrame:
    """The table behind a reliability diagram, of one class or of all entries together.

    Args:
        labels: Any shape, 0/1.
        probabilities: Same shape, in 0 .. 1.
        n_bins: Number of bins; empty ones are left out.
        equal_counts: Bins of about equally many texts instead of equal width: for rare labels,
            whose probabilities pile up near 0.
        level: Coverage of the interval.

    Returns:
        A row a bin: `from`, `to` (which belongs to the next bin), `count`, `mean probability`,
        `share of positives` and its interval `low`, `high`.

    Raises:
        DataError: Shapes differ, no rows, or a value is no probability.
    """
    y, p = labels.reshape(-1, 1), probabilities.reshape(-1, 1)
    check(y, p, probabilities=True)
    inner = np.linspace(0, 1, n_bins + 1)[1:-1]
    edges = np.unique(np.concatenate([[0], np.quantile(p, inner) if equal_counts else inner, [1]]))
    bins = np.searchsorted(edges[1:-1], p[:, 0], side="right")
    table = pd.DataFrame({"bin": bins, "p": p[:, 0], "y": y[:, 0]}).groupby("bin")
    count, positives = table.size(), table["y"].sum()
    low, high = proportion_interval(positives.to_numpy(), count.to_numpy(), level)
    columns = {
        "from": edges[count.index],
        "to": edges[count.index + 1],
        "count": count,
        "mean probability": table["p"].mean(),
        "share of positives": positives / count,
        "low": low,
        "high": high,
    }
    return pd.DataFrame(columns).reset_index(drop=True)


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, n_bins: int = 15, equal_counts: bool = False
) -> np.ndarray:
    """Mean distance between probability and share of positives over bins, weighted by their rows,
    for each class.

    Never zero on few rows, even for true probabilities: compare figures of equally many rows only.
    Arguments and errors as in `reliability`, both `(n_texts, n_classes)`.

    Returns:
        `(n_classes,)`.
    """
    errors = []
    for y, p in zip(labels.T, probabilities.T, strict=True):
        table = reliability(y, p, n_bins, equal_counts)
        gaps = (table["mean probability"] - table["share of positives"]).abs()
        errors.append(float((gaps * table["count"]).sum() / len(y)))
    return np.array(errors)
