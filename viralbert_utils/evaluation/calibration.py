"""Calibration of multi-label probabilities: reliability, its figures, and two ways to mend it.

A probability is calibrated if of the texts that get 0.3, three in ten carry the label. A tuned
threshold per class does not need it (any rising function of the scores leads to the same
decisions); a fixed 0.5, one threshold for all classes, and a reader do. Lesson 04 uses it. Sources:
Platt 1999; Guo et al. 2017 (temperature, expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from viralbert_utils.evaluation.thresholds import check


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
            return log_loss(targets, line[0] * z + line[1]), np.array(
                [(excess * z).mean(), excess.mean()]
            )

        slope[k], intercept[k] = minimize(
            loss, [1.0, 0.0], jac=True, bounds=[(1e-3, None), (None, None)]
        ).x
    return Calibration(slope, intercept)


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean squared error of the probabilities for each class `(n_classes,)` (Brier 1950)."""
    return ((probabilities - labels) ** 2).mean(axis=0)


def proportion_interval(
    successes: np.ndarray, n: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Jeffreys intervals of proportions (Brown, Cai & DasGupta 2001); nan where `n` is 0.

    Args:
        successes: Counts, any shape.
        n: How many there were, same shape.
        level: Coverage of the interval.
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low, high = (beta.ppf(q, successes + 0.5, n - successes + 0.5) for q in (tail, 1 - tail))
    low, high = np.where(successes == 0, 0.0, low), np.where(successes == n, 1.0, high)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def log_loss(targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy of logits against labels or softened targets, both of one shape."""
    return float((np.logaddexp(0, logits) - targets * logits).mean())
