"""Exact thresholds against loops over a grid; with a data folder, what each rule is worth on real
emotions.

    .venv/bin/python benchmarks/thresholds.py [data folder]

Without a folder: seconds for 28 classes x 50,000 scores, beside 99 values a class with
scikit-learn's `f1_score`. With one: TF-IDF and logistic regression, trained on the training split.
Half of the validation split is for tuning, of which random draws are taken, the other half is
scored; intervals are over draws and scored rows together.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from viralbert_utils.data import cleaning, emotions, sources, splits
from viralbert_utils.evaluation import calibration, metrics, thresholds
from viralbert_utils.evaluation.intervals import estimate
from viralbert_utils.evaluation.metrics import macro_f1
from viralbert_utils.lessons import threshold_study

N_ROWS, N_CLASSES, GRID = 50_000, 28, np.linspace(0.01, 0.99, 99)
SIZES, N_DRAWS, N_RESAMPLES = (250, 500, 1000, 2000), 50, 20
OWN = "per class, own rows"


def seconds_of_search() -> None:
    """Print seconds, ratios, and that no class is worse off than on the grid."""
    rng = np.random.default_rng(0)
    labels = (rng.random((N_ROWS, N_CLASSES)) < rng.uniform(0.002, 0.3, N_CLASSES)).astype(np.int8)
    scores = np.clip(rng.normal(0.3 + 0.2 * labels, 0.15), 0, 1).round(4)
    turns: dict[str, list[float]] = {"per class": [], "one": []}
    for _ in range(7):
        for rule, times in turns.items():
            start = time.perf_counter()
            thresholds.RULES[rule](labels, scores)
            times.append(time.perf_counter() - start)
    exact = {rule: statistics.median(times) for rule, times in turns.items()}
    start = time.perf_counter()
    grid = np.array(
        [f1_score(labels, scores >= cut, average=None, zero_division=0) for cut in GRID]
    )
    at_once = time.perf_counter() - start
    start = time.perf_counter()
    for k in range(N_CLASSES):
        for cut in GRID:
            f1_score(labels[:, k], scores[:, k] >= cut, zero_division=0)
    one_by_one = time.perf_counter() - start
    each, one = (
        thresholds.decide(scores, thresholds.RULES[rule](labels, scores)) for rule in turns
    )
    gains = metrics.f1_per_class(labels, each) - grid.max(axis=0)
    print(f"{N_CLASSES} classes x {N_ROWS} scores, {len(np.unique(scores))} of them distinct; F1")
    print(
        f"exact: per class {exact['per class']:.3f} s, one for all {exact['one']:.3f} s (median "
        "of 7)"
    )
    print(
        f"99 values, f1_score class by class: {one_by_one:.1f} s, ratio "
        f"{one_by_one / exact['per class']:.0f}"
    )
    print(
        f"99 values, f1_score of all classes: {at_once:.1f} s, ratio "
        f"{at_once / exact['per class']:.0f}"
    )
    print(
        f"F1 above the grid's best: per class {gains.min():.6f} to {gains.max():.6f}, "
        f"one for all {macro_f1(labels, one) - grid.mean(axis=1).max():.6f}"
    )


def platt_then(rule: thresholds.Rule) -> thresholds.Rule:
    """A rule on calibrated probabilities, as thresholds of the raw ones."""

    def thresholds_of(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        line = calibration.platt(labels, logit(probabilities))
        found = rule(labels, line.apply(logit(probabilities)))
        return expit((logit(np.clip(found, 0, 1)) - line.intercept) / line.slope)

    return thresholds_of


def chosen(labels: np.ndarray, scores: np.ndarray) -> float | np.ndarray:
    """Thresholds by the rule that is best on the tuning rows themselves, cross-fitted."""
    rules = thresholds.RULES.values()
    return max(
        rules, key=lambda rule: macro_f1(labels, thresholds.cross_fit(labels, scores, rule))
    )(labels, scores)


RULES = thresholds.RULES | {
    "chosen": chosen,
    "Platt, 0.5": platt_then(thresholds.RULES["0.5"]),
    "Platt, one": platt_then(thresholds.best_global),
    "Platt, shrunk": platt_then(thresholds.shrunk),
}


def curve(source: str) -> None:
    """Print macro-F1 on unseen rows, and its difference to one threshold, by rule and number of
    tuning rows."""
    import emotions as task  # beside this file; loads torch

    parts = cleaning.clean(sources.load("emotions", source), **cleaning.RULES["emotions"]).splits
    parts = splits.complete({name: parts[name] for name in ("train", "validation")})
    rows = {"train": parts["train"], "tune": parts["validation"], "test": parts["test"]}
    labels = {name: emotions.multi_hot(table["labels"]) for name, table in rows.items()}
    scores = task.tfidf(rows)
    n_tune, n_test = len(labels["tune"]), len(labels["test"])
    print(f"{ {name: len(table) for name, table in rows.items()} }, {N_DRAWS} draws of tuning rows")
    print(f"mean ROC AUC on test: {metrics.mean_roc_auc(labels['test'], scores['test']):.3f}\n")
    figures: dict[str, dict[str, str]] = {}
    differences: dict[str, dict[str, str]] = {}
    for size in (*SIZES, n_tune):
        value = {rule: np.zeros(N_DRAWS) for rule in (*RULES, OWN)}
        resampled = {rule: np.zeros((N_DRAWS, N_RESAMPLES)) for rule in value}
        for draw in range(N_DRAWS):
            rng = np.random.default_rng(draw)
            drawn = rng.choice(n_tune, size, replace=False)
            tuning = labels["tune"][drawn], scores["tune"][drawn]
            seen = thresholds.decide(tuning[1], thresholds.best_per_class(*tuning))
            value[OWN][draw] = resampled[OWN][draw] = macro_f1(tuning[0], seen)
            again = rng.integers(0, n_test, (N_RESAMPLES, n_test))
            for rule, choose in RULES.items():
                decided = thresholds.decide(scores["test"], choose(*tuning))
                value[rule][draw] = macro_f1(labels["test"], decided)
                resampled[rule][draw] = [
                    macro_f1(labels["test"][picked], decided[picked]) for picked in again
                ]
        column = f"{size} rows"
        figures[column] = {
            name: str(estimate(value[name].mean(), resampled[name].ravel(), 0.95)) for name in value
        }
        for name in RULES:
            gain, spread = value[name] - value["one"], resampled[name] - resampled["one"]
            differences.setdefault(column, {})[name] = str(
                estimate(gain.mean(), spread.ravel(), 0.95)
            )
    print("macro-F1 on test", pd.DataFrame(figures).to_string(), sep="\n")
    print("\ndifference to one threshold", pd.DataFrame(differences).to_string(), sep="\n")
    table = threshold_study.compare_rules(labels["tune"], scores["tune"])
    print("\nwithin the tuning rows, cross-fitted", table.round(3).to_string(), sep="\n")


if __name__ == "__main__":
    curve(sys.argv[1]) if len(sys.argv) > 1 else seconds_of_search()
