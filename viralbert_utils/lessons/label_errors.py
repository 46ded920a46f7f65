"""Which labels are wrong? Known errors planted, rows ranked by suspicion, corrections by a human
taken back.

Lesson 08 derives it. In every score *large is suspicious*; probabilities are out of fold, since a
model that has seen a wrong label may have learnt it. Sources: Northcutt, Jiang & Chuang 2021
(confident learning, arXiv 1911.00068), Thyagarajan et al. 2022 (its form for several labels, arXiv
2211.13895), Toneva et al. 2019 (forgetting, arXiv 1812.05159), Pleiss et al. 2020 (margins over
epochs, arXiv 2001.10528), Menon et al. 2021 (logit adjustment, arXiv 2007.07314).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import rankdata

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation import intervals

KINDS = ("flip", "missing", "swap")
# Pairs that annotators confuse: GoEmotions' neighbours, and those of CEDR's classes.
NEIGHBOURS = (
    ("annoyance", "anger"),
    ("annoyance", "disapproval"),
    ("sadness", "disappointment"),
    ("sadness", "grief"),
    ("fear", "nervousness"),
    ("joy", "excitement"),
    ("admiration", "approval"),
    ("admiration", "love"),
    ("surprise", "realization"),
    ("confusion", "curiosity"),
    ("embarrassment", "remorse"),
    ("desire", "optimism"),
)
CEDR_NEIGHBOURS = (
    ("joy", "surprise"),
    ("sadness", "fear"),
    ("sadness", "anger"),
    ("fear", "anger"),
)

# From positions of training and of other rows to probabilities of the others `(n_others,
# n_classes)`.
FitPredict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Planted:
    """Labels with known errors.

    Attributes:
        labels: `(n_texts, n_classes)`, 0/1, errors included.
        cells: `(n_texts, n_classes)`, true where a label differs from the original.
        kinds: `(n_texts,)`, one of `KINDS`, empty for untouched rows.
    """

    labels: np.ndarray
    cells: np.ndarray
    kinds: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """`(n_texts,)`, 1 for rows with an error."""
        return np.asarray(self.cells.any(axis=1), dtype=np.int8)


def plant(
    labels: np.ndarray,
    share: float,
    kinds: Sequence[str] = KINDS,
    neighbours: Sequence[tuple[int, int]] = (),
    nothing: int | None = None,
    seed: int = 0,
) -> Planted:
    """One error in each of a share of the rows, in equal parts of each kind.

    Args:
        labels: `(n_texts, n_classes)`, 0/1; not changed.
        share: Share of the rows that get an error.
        kinds: `flip` puts another class, at random, in the place of one of the row's; `swap` does
            so with a neighbour; `missing` takes one away.
        neighbours: Pairs of class ids for `swap`.
        nothing: Class that says that no other is there (neutral): a row that loses its only label
            gets it, and it is never put beside others.
        seed: Another seed gives other errors.

    Raises:
        DataError: An unknown kind, or too few rows that can have such an error.
    """
    if unknown := set(kinds) - set(KINDS):
        raise DataError(f"unknown kind of error {unknown.pop()!r}; use {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    planted, kind_of = labels.copy(), np.full(len(labels), "", dtype=object)
    near = {*neighbours, *((b, a) for a, b in neighbours)}
    bounds = np.linspace(0, round(share * len(labels)), len(kinds) + 1).round().astype(int)
    # Swaps first, flips last: the former have fewer rows to choose from.
    for kind, wanted in sorted(zip(kinds, np.diff(bounds), strict=True), reverse=True):
        left = wanted
        for row in rng.permutation(np.flatnonzero(kind_of == "")):
            if not left:
                break
            changes = _changes(labels[row], kind, near, nothing)
            if changes:
                old, new = changes[rng.integers(len(changes))]
                planted[row, old] = 0
                if new is not None:
                    planted[row, new] = 1
                kind_of[row], left = kind, left - 1
        if left:
            raise DataError(
                f"{wanted} rows were to get the error {kind!r}, but {left} too few can; plant fewer"
            )
    return Planted(planted, planted != labels, kind_of)


def _changes(row: np.ndarray, kind: str, near: set[tuple[int, int]], nothing: int | None) -> list:
    """Pairs of a label that goes and one that comes (or `None`)."""
    given, others = np.flatnonzero(row), np.flatnonzero(row == 0)
    if kind == "missing":
        return [(old, nothing if len(given) == 1 else None) for old in given if old != nothing]
    pairs = product(given, (new for new in others if new != nothing or len(given) == 1))
    return [(old, new) for old, new in pairs if kind == "flip" or (old, new) in near]


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Probability of each given answer, yes or no, `(n_texts, n_classes)`; small is suspicious,
    here alone.

    Of one yes or no, the loss `-log(p)` and the normalised margin `(p - (1 - p) + 1) / 2` order
    like it: three names, one order. They part only where the cells of a row become one number.
    """
    return np.where(labels > 0, probabilities, 1 - probabilities)


def loss(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each row, summed over the classes `(n_texts,)`: the plain ranking."""
    return -np.log(self_confidence(labels, probabilities).clip(1e-6)).sum(axis=1)


def margin(labels: np.ndarray, probabilities: np.ndarray, adjust: float = 0.5) -> np.ndarray:
    """How far the best class that is not given lies above the worst that is, in logits,
    `(n_texts,)`.

    Rare classes have low probabilities, right or wrong. So `adjust` times the logit of each class's
    rate is taken away: with 0 plain logits are compared, with 1 only what the text adds to what the
    rates alone say. In the middle both count: that many labels of a rare class are wrong is as
    improbable as the class.

    Args:
        labels: `(n_texts, n_classes)`, 0/1. A row without labels, or with all, has one half on the
            side that is empty.
        probabilities: Same shape, out of fold.
        adjust: 0 to 1.
    """
    support = class_support(labels, probabilities, adjust)
    best = np.where(labels > 0, -np.inf, support).max(axis=1)
    worst = np.where(labels > 0, support, np.inf).min(axis=1)
    return np.where(np.isinf(best), 0, best) - np.where(np.isinf(worst), 0, worst)


def class_support(labels: np.ndarray, probabilities: np.ndarray, adjust: float) -> np.ndarray:
    """Log-odds of each class less `adjust` times those of its rate, `(n_texts, n_classes)`."""
    rates = (labels.sum(axis=0) + 1) / (len(labels) + 2)
    return logit(probabilities.clip(1e-4, 1 - 1e-4)) - adjust * logit(rates)


def confident_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """For each class the mean self-confidence of its no and of its yes, `(n_classes, 2)` (Northcutt
    et al., eq. 2).

    A text counts as a sure yes if it has at least the probability that texts with the label have on
    average.
    """
    confidence = self_confidence(labels, probabilities)
    sides = [1 - labels, labels]
    return np.stack(
        [(confidence * side).sum(axis=0) / np.maximum(side.sum(axis=0), 1) for side in sides],
        axis=1,
    )


def sure_answers(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """What the model is sure of, `(n_texts, n_classes)`: 1 yes, 0 no, -1 neither; the likelier one
    of both."""
    bars = confident_thresholds(labels, probabilities) - 1e-6
    no, yes = 1 - probabilities >= bars[:, 0], probabilities >= bars[:, 1]
    return np.where(yes & (~no | (probabilities > 0.5)), 1, np.where(no, 0, -1))


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Estimated shares of texts by given (first axis) and true answer, `(n_classes, 2, 2)`, each
    class adding up to 1.

    Sure answers are counted beside the given ones; each row of counts is then scaled to the number
    of texts that were given this answer (Northcutt et al., eq. 3). Off the diagonal stand the
    labels that are there by mistake `[1, 0]` and those that are missing `[0, 1]`.
    """
    sure = sure_answers(labels, probabilities)
    counts = np.array(
        [[((labels == i) & (sure == j)).sum(axis=0) for j in (0, 1)] for i in (0, 1)], dtype=float
    )
    for i in (0, 1):
        counts[i, i] = counts[i, i].clip(1)
    given = np.stack([(labels == i).sum(axis=0) for i in (0, 1)])
    return np.moveaxis(
        counts / counts.sum(axis=1, keepdims=True) * given[:, None] / len(labels), 2, 0
    )


def confident_suspicion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Confident learning as a ranking `(n_texts,)`: the largest shortfall of a given answer behind
    its threshold."""
    bars = confident_thresholds(labels, probabilities)
    return (
        np.where(labels > 0, bars[:, 1], bars[:, 0]) - self_confidence(labels, probabilities)
    ).max(axis=1)


def forgetting(labels: np.ndarray, history: np.ndarray) -> np.ndarray:
    """How often a training row was right after one epoch and wrong after the next, `(n_texts,)`.

    Right means that its labels stand above all others (plain `margin` below zero). A row that was
    never right counts one more than any that was: `n_epochs`.

    Args:
        labels: `(n_texts, n_classes)`, those that were trained on.
        history: Probabilities after each epoch `(n_epochs, n_texts, n_classes)`.
    """
    right = np.stack([margin(labels, epoch, adjust=0) < 0 for epoch in history])
    return np.where(right.any(axis=0), (right[:-1] & ~right[1:]).sum(axis=0), len(history))


def mean_margin(labels: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Mean over the epochs of each training row's `margin` `(n_texts,)`; arguments as in
    `forgetting`."""
    return np.mean([margin(labels, epoch) for epoch in history], axis=0)


def combined(*scores: np.ndarray) -> np.ndarray:
    """Mean rank of each row in several rankings, as a share of the rows `(n_texts,)`."""
    return np.mean([rankdata(score) / len(score) for score in scores], axis=0)


def precision_at(k: int, wrong: np.ndarray, score: np.ndarray) -> float:
    """Share of wrong rows among the `k` most suspicious; of equal scores at the border, the
    expected share."""
    limit = np.sort(score)[-min(k, len(score))]
    above, equal = score > limit, score == limit
    left = min(k, len(score)) - above.sum()
    return float((wrong[above].sum() + left * wrong[equal].mean()) / min(k, len(score)))


def average_precision(wrong: np.ndarray, score: np.ndarray) -> float:
    """Mean of the precision at each wrong row; an order by chance has the share of wrong rows. Ties
    count together."""
    return float(_average_precision(wrong, score, np.ones((1, len(wrong))))[0])


def compare_rankings(
    wrong: np.ndarray,
    scores: Mapping[str, np.ndarray],
    reference: str,
    k: int = 100,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Average precision of several rankings of the same rows, and how each differs from one of
    them.

    Args:
        wrong: `(n_texts,)`, 1 for rows whose label is wrong.
        scores: Name -> suspicion `(n_texts,)`.
        reference: The ranking that the others are compared with, paired (bootstrap over rows).
        k: How many rows the precision at k looks at.
        n_resamples: Bootstrap resamples behind each interval.
        seed: Decides on the resamples.

    Returns:
        A row a ranking with `average precision`, `low`, `high`, `gain`, `gain low`, `gain high`
        (over the reference), `times chance` and `precision at k`.

    Raises:
        DataError: No row is wrong, or all are: no order is better than another.
    """
    if not 0 < wrong.sum() < len(wrong):
        raise DataError(f"{wrong.sum()} of {len(wrong)} rows are wrong; a ranking needs both kinds")
    weights = intervals.resample_weights(len(wrong), n_resamples, seed)
    resampled = {name: _average_precision(wrong, score, weights) for name, score in scores.items()}
    values = {name: average_precision(wrong, score) for name, score in scores.items()}
    rows = {}
    for name, value in values.items():
        interval = intervals.estimate(value, resampled[name], 0.95)
        gain = intervals.estimate(
            value - values[reference], resampled[name] - resampled[reference], 0.95
        )
        at_k = precision_at(k, wrong, scores[name])
        rows[name] = [*vars(interval).values(), *vars(gain).values(), value / wrong.mean(), at_k]
    columns = [
        "average precision",
        "low",
        "high",
        "gain",
        "gain low",
        "gain high",
        "times chance",
        "precision at k",
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _average_precision(wrong: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each row of weights `(n_resamples, n_texts)`: one sort serves all resamples."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    seen = weights[:, order]
    hits, all_ = np.cumsum(seen * wrong[order], axis=1)[:, ends], np.cumsum(seen, axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0) / np.maximum(hits[:, -1:], 1)
    return (gained * hits / np.maximum(all_, 1)).sum(axis=1)
