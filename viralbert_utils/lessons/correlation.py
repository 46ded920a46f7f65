"""Which emotions go together: in labels, in predictions, in probabilities, and with virality.

For 0/1 columns Pearson's correlation is phi. Probabilities pile up near zero, and there a few large
ones would decide: for them take Spearman's, which sees their order only. Lesson 05 uses it. All
intervals and tests are over texts; for many pairs at once they are corrected to a false discovery
rate (Benjamini & Hochberg 1995): column `q`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.optimize import brentq
from scipy.spatial.distance import squareform
from scipy.special import gammaln, softmax
from scipy.stats import (
    false_discovery_control,
    fisher_exact,
    norm,
    rankdata,
)

from viralbert_utils.base.errors import DataError
from viralbert_utils.data.tables import require_table
from viralbert_utils.evaluation.calibration import proportion_interval
from viralbert_utils.evaluation.intervals import resample_weights

TAIL = 0.025  # on either side of all intervals


def left_out(names: Sequence[str], *matrices: np.ndarray, min_positives: int = 10) -> list[str]:
    """Classes with too few positives, or too few negatives, in any of the 0/1 matrices; the tables
    below omit them."""
    return [
        name for name, used in zip(names, _kept(matrices, min_positives), strict=True) if not used
    ]


def correlation(values: np.ndarray, names: Sequence[str], spearman: bool = False) -> pd.DataFrame:
    """Correlation of all pairs of classes; phi for labels and predicted labels.

    Args:
        values: `(n_texts, n_classes)`, labels or probabilities.
        names: The classes, in the order of the columns.
        spearman: Whether ranks are correlated, as probabilities need it.

    Returns:
        `(n_classes, n_classes)`, with the names on both sides; nan for a class that does not vary.
    """
    return pd.DataFrame(
        _correlations(_ranks(values) if spearman else values)[0], list(names), list(names)
    )


def ordered(matrix: pd.DataFrame) -> pd.DataFrame:
    """A correlation matrix with like classes side by side; classes without a correlation are
    dropped.

    Average linkage on `1 - correlation`; of all orders that the tree allows, the one with the least
    distance between neighbours (Bar-Joseph, Gifford & Jaakkola 2001).
    """
    require_table(matrix, "the matrix")
    known = np.isfinite(np.diag(matrix))
    correlations = matrix.loc[known, known]
    if len(correlations) < 3:
        return correlations
    distances = squareform(1 - correlations.to_numpy(), checks=False)
    order = leaves_list(linkage(distances.clip(0), "average", optimal_ordering=True))
    return correlations.iloc[order, order]


def conditional(labels: np.ndarray, names: Sequence[str], min_positives: int = 10) -> pd.DataFrame:
    """How many of the texts with one class carry another: P(b|a) of all ordered pairs.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        names: The classes, in the order of the columns.
        min_positives: See `left_out`.

    Returns:
        A row a pair: `a`, `b`, `texts` (with a), `both`, `P(b|a)` and its Jeffreys interval `low`,
        `high`.

    Raises:
        DataError: Fewer than two classes are left.
    """
    classes, x = _select(names, min_positives, labels)
    counts = x.T.astype(float) @ x
    a, b = np.nonzero(~np.eye(len(classes), dtype=bool))
    texts, both = counts[a, a], counts[a, b]
    low, high = proportion_interval(both, texts)
    return pd.DataFrame(
        {
            "a": classes[a],
            "b": classes[b],
            "texts": texts.astype(int),
            "both": both.astype(int),
            "P(b|a)": both / texts,
            "low": low,
            "high": high,
        }
    )


def pairs(labels: np.ndarray, names: Sequence[str], min_positives: int = 10) -> pd.DataFrame:
    """Lift of all pairs: how many times as often two classes meet as they would by chance, and
    whether it is chance.

    The test is Fisher's exact one, two-sided: most pairs are expected to meet less than five times,
    where chi-square is not valid, and avoiding each other is a finding, too. The interval is that
    of the logarithm of the lift under multinomial sampling (delta method), half a text added to
    `both`.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        names: The classes, in the order of the columns.
        min_positives: See `left_out`.

    Returns:
        A row a pair: `a`, `b`, `both`, `expected` (by chance), `lift` with `low`, `high`, `phi`,
        `p`, `q`.

    Raises:
        DataError: Fewer than two classes are left.
    """
    classes, x = _select(names, min_positives, labels)
    counts, n = x.T.astype(float) @ x, len(x)
    a, b = np.triu_indices(len(classes), 1)
    both, n_a, n_b = counts[a, b], counts[a, a], counts[b, b]
    expected = n_a * n_b / n
    smooth = both + 0.5
    spread = np.sqrt(
        np.maximum(1 / smooth - 1 / n_a - 1 / n_b + (2 * smooth / expected - 1) / n, 0)
    )
    reach = np.exp(norm.ppf(1 - TAIL) * spread)
    tables = np.array([[both, n_a - both], [n_b - both, n - n_a - n_b + both]]).transpose(2, 0, 1)
    p = np.array([fisher_exact(table).pvalue for table in tables])
    return pd.DataFrame(
        {
            "a": classes[a],
            "b": classes[b],
            "both": both.astype(int),
            "expected": expected,
            "lift": both / expected,
            "low": np.where(both > 0, smooth / expected / reach, 0),
            "high": smooth / expected * reach,
            "phi": _correlations(x)[0][a, b],
            "p": p,
            "q": false_discovery_control(p),
        }
    )


def phi_interval(both: int, n_a: int, n_b: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of phi from the exact conditional interval of the odds ratio (Fisher 1935).

    The numbers of texts of both classes are taken as given. Each end of the odds ratio implies a
    mean number of texts with both, and that number implies a phi. Unlike a bootstrap, the interval
    has a width where no text carries both classes.

    Args:
        both: Texts with both classes.
        n_a: Texts with the first class, at least 1 and fewer than `n`.
        n_b: Texts with the second class, likewise.
        n: All texts.
        level: Coverage.
    """
    k = np.arange(max(0, n_a + n_b - n), min(n_a, n_b) + 1)
    counts = (k, n_a - k, n_b - k, n - n_a - n_b + k)
    ways = -sum(gammaln(count + 1) for count in counts)

    def chances(log_odds: float) -> np.ndarray:
        return np.asarray(softmax(ways + k * log_odds))

    def solved(beyond: np.ndarray) -> float:
        """Mean meetings at the odds ratio that makes what was seen, or beyond, just rare enough."""
        tail = (1 - level) / 2
        log_odds = brentq(lambda odds: chances(odds)[beyond].sum() - tail, -50, 50)
        return float(chances(log_odds) @ k)

    meetings = (
        k[0] if both == k[0] else solved(k >= both),
        k[-1] if both == k[-1] else solved(k <= both),
    )
    spread = np.sqrt(float(n_a) * (n - n_a) * n_b * (n - n_b))
    low, high = ((n * count - n_a * n_b) / spread for count in meetings)
    return float(low), float(high)


def phi_difference_exact(
    labels: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    level: float = 0.05,
    min_positives: int = 10,
    min_expected: float = 1.0,
) -> pd.DataFrame:
    """Where phi differs between predictions and labels: two exact intervals, put together.

    Pairs are chosen by the meetings that chance would give, never by those that were seen. The two
    intervals of a pair (`phi_interval`) give that of the difference by Newcombe's square-and-add
    rule, as if both sides were independent: on the same texts they are not, which makes the
    interval wider than needed where they agree. `clear` uses Bonferroni's level over all pairs.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        predictions: Same shape, 0/1.
        names: The classes, in the order of the columns.
        level: Chance of a single false statement among all pairs.
        min_positives: In both, see `left_out`.
        min_expected: Meetings by chance that a pair must have, in labels and in predictions.

    Returns:
        A row a pair: `a`, `b`, `both_labels`, `both_predictions`, `labels`, `predictions` (their
        phi), `difference` with its 95 % interval `low`, `high`, and `clear`.

    Raises:
        DataError: Shapes differ, or no pair is left.
    """
    classes, x, y = _select(names, min_positives, labels, predictions)
    n = len(x)
    counts = [values.T.astype(int) @ values for values in (x, y)]
    sizes = [np.diag(count) for count in counts]
    expected = np.min([np.outer(size, size) / n for size in sizes], axis=0)
    chosen = np.argwhere(np.triu(expected >= min_expected, 1))
    if not len(chosen):
        raise DataError(f"no pair is expected to meet {min_expected} times; give more texts")
    phis = [_correlations(values)[0] for values in (x, y)]
    rows = []
    for a, b in chosen:
        of_labels, of_predictions = (float(phi[a, b]) for phi in phis)
        ends = {}
        for name, coverage in (("shown", 0.95), ("corrected", 1 - level / len(chosen))):
            (low_l, high_l), (low_p, high_p) = (
                phi_interval(int(count[a, b]), int(size[a]), int(size[b]), n, coverage)
                for count, size in zip(counts, sizes, strict=True)
            )
            ends[name] = (
                of_predictions - of_labels - np.hypot(of_predictions - low_p, high_l - of_labels),
                of_predictions - of_labels + np.hypot(high_p - of_predictions, of_labels - low_l),
            )
        rows.append(
            {
                "a": classes[a],
                "b": classes[b],
                "both_labels": int(counts[0][a, b]),
                "both_predictions": int(counts[1][a, b]),
                "labels": of_labels,
                "predictions": of_predictions,
                "difference": of_predictions - of_labels,
                "low": ends["shown"][0],
                "high": ends["shown"][1],
                "clear": bool(ends["corrected"][0] > 0 or ends["corrected"][1] < 0),
            }
        )
    return pd.DataFrame(rows)


def partial(
    score: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    spearman: bool = True,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Which emotions go with a score (virality) given all the others: partial correlation of each.

    Args:
        score: `(n_texts,)`, a label or a score.
        values: `(n_texts, n_classes)`, labels or probabilities.
        names: The classes, in the order of the columns.
        spearman: Whether ranks are correlated (taken once, on all texts), see `correlation`.
        n_resamples: Bootstrap resamples of the texts.
        seed: Decides on the resamples.

    Returns:
        A row a class that varies: `partial` with `low`, `high`, `alone` (its correlation with the
        score), `p`, `q`.

    Raises:
        DataError: The score does not vary, or a class follows from the others (as where each text
            has exactly one).
    """
    varies = (values != values[:1]).any(axis=0)
    x = np.column_stack([score, values[:, varies]])
    x = _ranks(x) if spearman else x
    whole = _correlations(x)
    if np.ptp(score) == 0 or np.linalg.cond(whole[0]) > 1e8:
        raise DataError(
            "not defined: the score does not vary, or a class follows from the others (leave "
            "neutral out)"
        )
    tested = _tested(_partial(_correlations(x, resample_weights(len(x), n_resamples, seed))))
    table = pd.DataFrame(
        {"partial": _partial(whole)[0], **tested}, index=np.array(list(names))[varies]
    )
    table.insert(3, "alone", whole[0][0, 1:])
    return table


def _kept(matrices: Sequence[np.ndarray], min_positives: int) -> np.ndarray:
    counts = np.array([[x.sum(axis=0), len(x) - x.sum(axis=0)] for x in matrices])
    return counts.min(axis=(0, 1)) >= max(min_positives, 1)


def _select(names: Sequence[str], min_positives: int, *matrices: np.ndarray) -> list[np.ndarray]:
    """Names of the classes with enough positives, and their columns of each matrix."""
    if any(x.shape != (len(matrices[0]), len(names)) for x in matrices):
        raise DataError(
            f"matrices {[x.shape for x in matrices]}; expected one shape, (n_texts, {len(names)})"
        )
    used = _kept(matrices, min_positives)
    if used.sum() < 2:
        raise DataError(
            f"{used.sum()} classes have {min_positives} positives and negatives; at least two are "
            "needed"
        )
    return [np.array(list(names))[used], *(x[:, used] for x in matrices)]


def _ranks(values: np.ndarray) -> np.ndarray:
    return rankdata(values, axis=0)


def _correlations(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlations in all resamples `(n_resamples, n_columns, n_columns)`; nan where a
    column is constant.

    Args:
        values: `(n_texts, n_columns)`.
        weights: `(n_resamples, n_texts)`, how often a resample holds each text; all texts once by
            default.
    """
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"value of row {row}, column {column} is {values[row, column]}; all must be finite "
            "numbers"
        )
    n, n_columns = values.shape
    weights = np.ones((1, n)) if weights is None else weights
    varies = np.ptp(values, axis=0) > 0
    x = (values - values.mean(axis=0)) / np.where(varies, values.std(axis=0), 1)
    a, b = np.triu_indices(n_columns)
    means = weights @ x / n
    covariances = np.empty((len(weights), n_columns, n_columns))
    covariances[:, a, b] = weights @ (x[:, a] * x[:, b]) / n - means[:, a] * means[:, b]
    covariances[:, b, a] = covariances[:, a, b]
    variances = np.einsum("rkk->rk", covariances)
    spread = np.sqrt(np.where(varies & (variances > 1e-9), variances, np.nan))
    return covariances / (spread[:, :, None] * spread[:, None, :])


def _partial(correlations: np.ndarray) -> np.ndarray:
    """Correlation of the first column with each other one, given the rest, by the inverse matrix.

    The shape is `(n_resamples, n_columns - 1)`; nan in resamples in which a column is constant.
    """
    defined = np.isfinite(correlations).all(axis=(1, 2))
    partials = np.full((len(correlations), correlations.shape[1] - 1), np.nan)
    inverse = np.linalg.pinv(correlations[defined], hermitian=True)
    scale = np.sqrt(np.einsum("rkk->rk", inverse))
    partials[defined] = -inverse[:, 0, 1:] / (scale[:, :1] * scale[:, 1:])
    return partials


def _tested(resampled: np.ndarray) -> dict[str, np.ndarray]:
    """Percentile interval and two-sided p-value against zero of each column of resamples, and q
    over all columns."""
    low, high = np.nanquantile(resampled, [TAIL, 1 - TAIL], axis=0)
    n = np.isfinite(resampled).sum(axis=0)
    beyond = np.minimum((resampled <= 0).sum(axis=0), (resampled >= 0).sum(axis=0))
    p = np.minimum(2 * (beyond + 1) / (n + 1), 1)
    return {"low": low, "high": high, "p": p, "q": false_discovery_control(p)}
