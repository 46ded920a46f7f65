"""What lesson 04 asks about thresholds: other aims than F1, what each rule is worth, and how stable
its thresholds are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from viralbert_utils.evaluation.intervals import macro_f1_difference
from viralbert_utils.evaluation.metrics import macro_f1
from viralbert_utils.evaluation.thresholds import (
    RULES,
    Objective,
    Rule,
    best_per_class,
    cross_fit,
    decide,
)


def precision_at_recall(recall: float) -> Objective:
    """The highest precision among the thresholds that find at least this share of the positives."""

    def value(hits: np.ndarray, false_alarms: np.ndarray, misses: np.ndarray) -> np.ndarray:
        allowed = hits >= recall * (hits + misses) - 1e-9
        return np.where(allowed, hits / np.maximum(hits + false_alarms, 1), -1.0)

    return value


def cost(false_alarm: float, miss: float) -> Objective:
    """The lowest total cost of errors; calibrated scores are cut near `false_alarm / (false_alarm +
    miss)`."""
    return lambda hits, false_alarms, misses: -(false_alarm * false_alarms + miss * misses)


def compare_rules(
    labels: np.ndarray,
    scores: np.ndarray,
    reference: str = "one",
    rules: Mapping[str, Rule] = RULES,
    n_folds: int = 5,
    seed: int = 0,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """What each rule seems to gain on the rows it was tuned on, and what is left of it on rows it
    has not seen.

    Returns:
        A row a rule: macro-F1 `apparent` (same rows) and `cross-fitted`; `gain` over the reference,
        cross-fitted, with the interval `low`, `high`; `optimism` = apparent gain - cross-fitted
        gain. The rule to keep is the one with the highest cross-fitted figure; what it is worth is
        for rows that had no part in this choice.
    """
    seen = {name: decide(scores, rule(labels, scores)) for name, rule in rules.items()}
    unseen = {name: cross_fit(labels, scores, rule, n_folds, seed) for name, rule in rules.items()}
    rows = {}
    for name in rules:
        gain = macro_f1_difference(labels, unseen[reference], unseen[name], n_resamples, seed)
        apparent = macro_f1(labels, seen[name])
        rows[name] = {
            "apparent": apparent,
            "cross-fitted": macro_f1(labels, unseen[name]),
            "gain": gain.value,
            "low": gain.low,
            "high": gain.high,
            "optimism": apparent - macro_f1(labels, seen[reference]) - gain.value,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def resampled(
    labels: np.ndarray,
    scores: np.ndarray,
    rule: Rule = best_per_class,
    n_resamples: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Thresholds of as many bootstrap resamples of the rows `(n_resamples, n_classes)`: how stable
    are they?

    For an interval take `np.quantile(thresholds, [0.025, 0.975], axis=0, method="inverted_cdf")`:
    infinity, from resamples without positives, cannot be averaged.
    """
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(labels), len(labels)) for _ in range(n_resamples))
    return np.array(
        [np.broadcast_to(rule(labels[rows], scores[rows]), labels.shape[1]) for rows in draws]
    )
