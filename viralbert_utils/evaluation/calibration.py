"""Calibration of multi-label probabilities: reliability, its figures, and two ways to mend it.

A probability is calibrated if of the texts that get 0.3, three in ten carry the label. A tuned
threshold per class does not need it (any rising function of the scores leads to the same
decisions); a fixed 0.5, one threshold for all classes, and a reader do. Lesson 04 uses it. Sources:
Platt 1999; Guo et al. 2017 (temperature, expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from viralbert_utils.evaluation.thresholds import check

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Calibration:
    """A line on the logits of each class: `probability = sigmoid(slope * logit + intercept)`.

    Attributes:
        slope: `(n_classes,)`, positive: the order of texts within a class stays.
        intercept: `(n_classes,)`.
    """

    slope: np.ndarray
    intercept: np.ndarray

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `(n_texts, n_classes)` of logits of that shape."""
        return expit(self.slope * logits + self.intercept)


def temperature(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """One number for all classes that logits are divided by; no decision at 0.5 changes by it.

    Args:
        labels: `(n_texts, n_classes)`, 0/1, of rows that the model was not trained on.
        logits: Same shape, finite.

    Raises:
        DataError: Shapes differ, no rows, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar  # heavy as well

    check(labels, logits)
    # Bounded: where logits tell labels apart without error, colder is always better.
    found = minimize_scalar(
        lambda log_slope: _log_loss(labels, np.exp(log_slope) * logits), bounds=(-5, 5)
    )
    n_classes = logits.shape[1]
    return Calibration(np.full(n_classes, np.exp(found.x)), np.zeros(n_classes))


def platt(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """A slope and an intercept for each class, by maximum likelihood with Platt's softened targets.

    The targets `(n_k + 1) / (n_k + 2)` and `1 / (n_rest + 2)` in place of 1 and 0 keep the fit
    finite where a few positives lie apart from the rest. A class with one kind of rows only is left
    as it is. Arguments and errors as in `temperature`.
    """
    from scipy.optimize import minimize

    check(labels, logits)
    n_classes = logits.shape[1]
    slope, intercept = np.ones(n_classes), np.zeros(n_classes)
    positives = labels.sum(axis=0)
    for k in np.flatnonzero((positives > 0) & (positives < len(labels))):
        rest = len(labels) - positives[k]
        targets = np.where(
            labels[:, k] > 0, (positives[k] + 1) / (positives[k] + 2), 1 / (rest + 2)
        )
        z = logits[:, k]

        def loss(
            line: np.ndarray, z: np.ndarray = z, targets: np.ndarray = targets
        ) -> tuple[float, np.ndarray]:
            excess = expit(line[0] * z + line[1]) - targets
            return _log_loss(targets, line[0] * z + line[1]), np.array(
                [(excess * z).mean(), excess.mean()]
            )

        slope[k], intercept[k] = minimize(
            loss, [1.0, 0.0], jac=True, bounds=[(1e-3, None), (None, None)]
        ).x
    return Calibration(slope, intercept)


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
        level: Of the interval.

    Returns:
        A row a bin: `from`, `to` (which belongs to the next bin), `count`, `mean probability`,
        `share of positives` and its interval `low`, `high`.

    Raises:
        DataError: Shapes differ, no rows, or a value is no probability.
    """
    import pandas as pd  # heavy, and applying a calibration needs it not

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


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean squared difference between probability and label for each class `(n_classes,)` (Brier
    1950)."""
    return ((probabilities - labels) ** 2).mean(axis=0)


def proportion_interval(
    successes: np.ndarray, n: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Jeffreys interval of proportions, all at once (Brown, Cai & DasGupta 2001); nan where `n` is
    0.

    Args:
        successes: Counts, any shape.
        n: Of how many, same shape.
        level: Of the interval.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low, high = (beta.ppf(q, successes + 0.5, n - successes + 0.5) for q in (tail, 1 - tail))
    low, high = np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def _log_loss(targets: np.ndarray, logits: np.ndarray) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).mean())
