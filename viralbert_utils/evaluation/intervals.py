"""Metrics with intervals, and paired comparison of two systems on the same rows.

Names: *macro-F1* is the mean over classes of the F1 of the positive class; *binary macro-F1* (the
CEDR papers' figure) is the mean over classes of the average of both classes' F1, near one half
already for a system that never says yes (lesson 01). Intervals: bias-corrected bootstrap over the
scored rows (Efron 1979), the same resamples for both systems of a comparison. They cover the choice
of those rows, not that of training rows, thresholds or random seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

if TYPE_CHECKING:
    import pandas as pd
from viralbert_utils.evaluation.metrics import (
    binary_macro_f1,
    f1_of_counts,
    macro_f1,
    weighted_counts,
)


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; `str()` gives `0.412 [0.395, 0.430]`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The value and its interval with three decimals."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def side(self) -> str:
        """For a difference: `above` or `below` zero by its interval, else `not told apart from`."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "not told apart from"


def macro_f1_interval(
    labels: np.ndarray,
    predictions: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Estimate:
    """Macro-F1 with its bootstrap interval; `groups` as in `resample_weights`.

    Each resample is a vector of row weights, so one matrix product gives the counts of all
    resamples at once.
    """
    resampled = _resampled_macro_f1(
        labels, predictions, resample_weights(len(labels), n_resamples, seed, groups)
    )
    return estimate(macro_f1(labels, predictions), resampled, level)


def macro_f1_difference(
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Estimate:
    """Macro-F1 of `b` minus that of `a` on the same rows, with its paired interval."""
    weights = resample_weights(len(labels), n_resamples, seed, groups)
    differences = _resampled_macro_f1(labels, b, weights) - _resampled_macro_f1(labels, a, weights)
    return estimate(macro_f1(labels, b) - macro_f1(labels, a), differences, level)


def sign_flip_test(differences: np.ndarray) -> float:
    """Two-sided p-value of paired differences whose signs could be others (Fisher 1935).

    All `2 ** n` choices of signs are tried, so `n` of them give no p-value below `2 / 2 ** n`.

    Args:
        differences: `(n,)`, 1 to 20 of them.

    Raises:
        ValueError: None, or too many to try all signs.
    """
    n = len(differences)
    if not 1 <= n <= 20:
        raise ValueError(f"{n} differences; expected 1 to 20")
    signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    means = np.abs(signs @ differences)
    # The choice that was observed counts, and so do those that differ from it by rounding only.
    return float(np.mean(means >= np.abs(differences.sum()) * (1 - 1e-9)))


def compare(
    labels: np.ndarray,
    systems: Mapping[str, np.ndarray],
    reference: str,
    n_resamples: int = 1000,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Macro-F1 of several systems on the same rows, and how each differs from one of them.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        systems: Name -> predictions of the same shape.
        reference: The system that the others are compared with, paired.
        n_resamples: See `macro_f1_interval`.
        seed: See `macro_f1_interval`.
        groups: See `resample_weights`.

    Returns:
        A row a system with `macro-F1`, `low`, `high`, `to reference` (the paired difference with
        its interval, as text) and `binary macro-F1`.
    """
    import pandas as pd  # heavy, and a service that only decides does without

    rows = {}
    for name, predictions in systems.items():
        f1 = macro_f1_interval(labels, predictions, n_resamples, seed, groups=groups)
        difference = macro_f1_difference(
            labels, systems[reference], predictions, n_resamples, seed, groups=groups
        )
        paired = "" if name == reference else str(difference)
        rows[name] = [f1.value, f1.low, f1.high, paired, binary_macro_f1(labels, predictions)]
    columns = ["macro-F1", "low", "high", "to reference", "binary macro-F1"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def bootstrap(
    metric: Callable[..., float],
    *arrays: np.ndarray,
    n_resamples: int = 300,
    seed: int = 0,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Estimate:
    """Any metric of row-aligned arrays with its interval; `groups` as in `resample_weights`.

    Resamples on which the metric is undefined (it raises `ValueError`) are left out.

    Raises:
        ValueError: The metric is undefined on the whole set, or on more than half of the resamples.
    """
    rng = np.random.default_rng(seed)
    members = (
        [np.flatnonzero(groups == name) for name in np.unique(groups)]
        if groups is not None
        else None
    )
    n_drawn = len(members or arrays[0])
    values = []
    for _ in range(n_resamples):
        rows = rng.integers(0, n_drawn, n_drawn)
        if members is not None:
            rows = np.concatenate([members[k] for k in rows])
        try:
            values.append(metric(*(array[rows] for array in arrays)))
        except ValueError:
            continue
    value = metric(*arrays)
    if len(values) < n_resamples / 2:
        raise ValueError(
            f"the metric was undefined on {n_resamples - len(values)} of {n_resamples} resamples"
        )
    return estimate(value, np.array(values), level)


def gain(metric: Callable[..., float]) -> Callable[..., float]:
    """The metric of a second system minus that of a first, for a paired `bootstrap`."""
    return lambda labels, first, second: metric(labels, second) - metric(labels, first)


def estimate(value: float, resampled: np.ndarray, level: float) -> Estimate:
    """A figure with its bias-corrected percentile interval (Efron & Tibshirani 1993, ch. 14).

    Resamples lose some of the few positives of rare classes, so their macro-F1 lies below the
    figure itself on average; the correction shifts the percentiles by the share of resamples below
    it.
    """
    below = (np.sum(resampled < value) + 0.5 * np.sum(resampled == value)) / len(resampled)
    shift = 2 * ndtri(np.clip(below, 1 / (len(resampled) + 1), 1 - 1 / (len(resampled) + 1)))
    levels = ndtr(shift + ndtri([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(resampled, levels)
    return Estimate(float(value), float(low), float(high))


def resample_weights(
    n_rows: int, n_resamples: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """How often each row stands in each bootstrap resample `(n_resamples, n_rows)`, float32.

    With `groups` `(n_rows,)` whole groups are drawn, not rows: reviews of one film tell less than
    as many of as many films.
    """
    if groups is not None:
        names, group_of = np.unique(groups, return_inverse=True)
        return resample_weights(len(names), n_resamples, seed)[:, group_of]
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=n_resamples).astype(np.float32)


def _resampled_macro_f1(
    labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    return f1_of_counts(*weighted_counts(labels, predictions, weights)).mean(axis=1)
