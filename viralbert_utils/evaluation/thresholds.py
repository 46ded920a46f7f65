"""Decision thresholds for multi-label scores: exact search, rare classes, storage.

Tuned on rows of their own, never on those that are scored. Only the distinct scores matter, so one
sort finds the best threshold of a class exactly (S-Cut: Yang 2001; exact for macro-F1: Pillai,
Fumera & Roli 2013). Lesson 04 derives it; lesson 01 uses it for the baseline.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_plain, own_path, write_whole
from viralbert_utils.evaluation.metrics import macro_f1

# The names of the transformers library: exactly one class a text, or any number of them.
SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"

# From true positives, false positives and false negatives (arrays of one shape) to what is to be
# made large.
Objective = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# From labels and scores to one threshold, or to one for each class.
Rule = Callable[[np.ndarray, np.ndarray], "float | np.ndarray"]


def decide(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """The one decision rule of the course: `score >= threshold`.

    Args:
        scores: `(n_texts, n_classes)`, probabilities or any scores.
        threshold: A number, or one for each class `(n_classes,)`; infinity = never.

    Returns:
        `(n_texts, n_classes)`, int8.

    Raises:
        DataError: A score is NaN: it is neither above nor below.
    """
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise DataError(
            f"score of row {row}, class {column} is nan; expected numbers: check the model's output"
        )
    # As float64: a Python number would be rounded to float32 scores' precision, and might then let
    # other rows in.
    return (scores >= np.asarray(threshold, dtype=np.float64)).astype(np.int8)


def f_beta(beta: float = 1.0) -> Objective:
    """F-beta: recall counts `beta` times as much as precision."""
    weight = beta * beta

    def value(hits: np.ndarray, false_alarms: np.ndarray, misses: np.ndarray) -> np.ndarray:
        weighted_hits = (1 + weight) * hits
        return weighted_hits / np.maximum(weighted_hits + weight * misses + false_alarms, 1e-9)

    return value


def recall_at_precision(precision: float) -> Objective:
    """The highest recall among the thresholds with at least this precision; never, if none."""

    def value(hits: np.ndarray, false_alarms: np.ndarray, misses: np.ndarray) -> np.ndarray:
        # Who predicts nothing is never wrong: always allowed, and finds nothing.
        allowed = hits >= precision * (hits + false_alarms) - 1e-9
        return np.where(allowed, hits / np.maximum(hits + misses, 1), -1.0)

    return value


def best_per_class(
    labels: np.ndarray, scores: np.ndarray, objective: Objective | None = None
) -> np.ndarray:
    """For each class the best of all thresholds, exactly, in O(n log n).

    Cutting below the k-th highest score predicts k rows, and a cumulative sum over the sorted
    labels tells how many of them are right; equal scores are cut together. The threshold lies
    midway to the next lower score; of equally good ones the highest is taken. A class without
    positives gets infinity (never predicted).

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        scores: Same shape, finite.
        objective: F1 unless another is given.

    Returns:
        `(n_classes,)`.

    Raises:
        DataError: Shapes differ, no rows, labels other than 0/1, or a score is not finite.
    """
    ranked, values = _cuts(labels, scores, objective or f_beta())
    values[:, 1:-1][ranked[:, 1:] == ranked[:, :-1]] = -np.inf
    return _midway(ranked, values.argmax(axis=1))


def best_global(
    labels: np.ndarray, scores: np.ndarray, objective: Objective | None = None
) -> float:
    """The one threshold for all classes with the highest mean of the objective, exactly.

    Lowering the threshold past one score changes one class only, so the mean is followed by adding
    up these changes over all scores, sorted together. Arguments and errors as in `best_per_class`;
    infinity if no label is positive.
    """
    ranked, values = _cuts(labels, scores, objective or f_beta())
    order = np.argsort(-ranked, axis=None)
    merged = ranked.ravel()[order]
    totals = values[:, 0].sum() + np.append(0, np.cumsum(np.diff(values, axis=1).ravel()[order]))
    totals[1:-1][merged[1:] == merged[:-1]] = -np.inf
    return float(_midway(merged[None], totals.argmax(keepdims=True))[0])


def shrunk(labels: np.ndarray, probabilities: np.ndarray, strength: float = 10.0) -> np.ndarray:
    """Thresholds per class, drawn towards the one for all where a class has few positives.

    A threshold tuned on five positives is mostly chance. On the logit scale, with `n_k` positives,
    `w = n_k / (n_k + strength)` and `t = w * t_class + (1 - w) * t_all`.

    Args:
        labels: `(n_texts, n_classes)`, 0/1.
        probabilities: Same shape, in 0 .. 1.
        strength: Number of positives at which a class's own threshold counts half.

    Returns:
        `(n_classes,)`; all infinite if no label is positive.

    Raises:
        DataError: As in `best_per_class`, or a value is no probability.
    """
    check(labels, probabilities, probabilities=True)
    one, each = best_global(labels, probabilities), best_per_class(labels, probabilities)
    if np.isinf(one):
        return each
    positives = labels.sum(axis=0)
    weight = positives / (positives + strength)
    logits = _logit(np.where(np.isfinite(each), each, one))
    return expit(weight * logits + (1 - weight) * _logit(one))


def _logit(thresholds: float | np.ndarray) -> np.ndarray:
    return logit(np.clip(thresholds, 1e-6, 1 - 1e-6))


def supported(labels: np.ndarray, scores: np.ndarray, min_positives: int = 20) -> np.ndarray:
    """A class's own threshold if it has enough positives, else the one for all `(n_classes,)`."""
    enough = labels.sum(axis=0) >= min_positives
    return np.where(enough, best_per_class(labels, scores), best_global(labels, scores))


def check(labels: np.ndarray, scores: np.ndarray, probabilities: bool = False) -> None:
    """Refuse what nothing can be fitted on; both `(n_texts, n_classes)`.

    Raises:
        DataError: Shapes differ, no rows, labels other than 0/1, a score is not finite or, if so
            wished, not in 0 .. 1.
    """
    if labels.shape != scores.shape or labels.ndim != 2:
        raise DataError(
            f"labels {labels.shape} and scores {scores.shape} must have the same shape, texts x "
            "classes"
        )
    if not scores.size:
        raise DataError("no rows to tune on")
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise DataError(
            f"score of row {row}, class {column} is {scores[row, column]}; all must be finite "
            "numbers"
        )
    if not ((labels == 0) | (labels == 1)).all():
        raise DataError(f"labels must be 0 or 1; found {labels.min()} to {labels.max()}")
    if probabilities and (scores.min() < 0 or scores.max() > 1):
        raise DataError(f"expected probabilities; found {scores.min():.3g} to {scores.max():.3g}")


RULES: dict[str, Rule] = {
    "0.5": lambda labels, scores: 0.5,
    "one": best_global,
    "per class": best_per_class,
    "shrunk": shrunk,
    "supported": supported,
}


def cross_fit(
    labels: np.ndarray, scores: np.ndarray, rule: Rule, n_folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Decisions by thresholds that were tuned on the other folds, `(n_texts, n_classes)`."""
    check(labels, scores)
    fold = folds(labels, n_folds, seed)
    decided = np.empty(labels.shape, dtype=np.int8)
    for k in range(n_folds):
        decided[fold == k] = decide(scores[fold == k], rule(labels[fold != k], scores[fold != k]))
    return decided


def folds(labels: np.ndarray, n_folds: int = 5, seed: int = 0) -> np.ndarray:
    """The fold of each row `(n_texts,)`, dealt out by its rarest label."""
    rarest = np.where(labels > 0, labels.sum(axis=0), len(labels) + 1).argmin(axis=1)
    rarest[~labels.any(axis=1)] = -1
    fold = np.empty(len(labels), dtype=int)
    fold[np.lexsort((np.random.default_rng(seed).random(len(labels)), rarest))] = (
        np.arange(len(labels)) % n_folds
    )
    return fold


@dataclass(frozen=True)
class Thresholds:
    """Thresholds as they are stored with a model, with what they were tuned on.

    Attributes:
        names: The classes, in the order of the scores' columns.
        values: A threshold each, from 0 to 1 as the probabilities are; infinity = never predicted.
        method: A key of `RULES`.
        n_rows: Number of tuning rows.
        positives: How many of them carry each class.
        gain: Cross-fitted macro-F1 minus that of 0.5, on the tuning rows.
        sha256: Hash of the tuning rows' labels and scores; other rows or another model give another
            one.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    method: str
    n_rows: int
    positives: tuple[int, ...]
    gain: float
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what could not decide about every class."""
        complete = (
            len(set(self.names)) == len(self.names) == len(self.values) == len(self.positives)
        )
        if not complete or not all(0 <= value <= 1 or value == np.inf for value in self.values):
            raise DataError(
                "expected distinct names, and for each a threshold in 0 .. 1 (or infinity) and a "
                f"number of positives; found names {self.names}, values {self.values}, positives "
                f"{self.positives}; tune them again"
            )

    @classmethod
    def tune(
        cls, names: Sequence[str], labels: np.ndarray, scores: np.ndarray, method: str = "shrunk"
    ) -> Thresholds:
        """Tune by one of `RULES`; arguments as in `best_per_class`, a name for each column."""
        if method not in RULES:
            raise DataError(f"unknown rule {method!r}; expected one of {', '.join(RULES)}")
        unseen = cross_fit(labels, scores, RULES[method])
        gain = macro_f1(labels, unseen) - macro_f1(labels, decide(scores, 0.5))
        values = np.broadcast_to(RULES[method](labels, scores), labels.shape[1])
        digest = hashlib.sha256(
            labels.astype(np.int8).tobytes() + scores.astype(np.float64).tobytes()
        ).hexdigest()
        positives = tuple(map(int, labels.sum(axis=0)))
        return cls(
            tuple(names), tuple(map(float, values)), method, len(labels), positives, gain, digest
        )

    def apply(self, scores: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Decisions `(n_texts, n_classes)` of `decide`; `names` are the model's columns.

        Raises:
            DataError: They are not the names that the thresholds were tuned for, in this order, or
                not as many as there are columns.
        """
        self.check_names(names)
        if scores.shape[1:] != (len(self.names),):
            raise DataError(f"scores {scores.shape}; expected (n_texts, {len(self.names)})")
        return decide(scores, np.array(self.values))

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse names of a model's classes that are not those the thresholds were tuned for.

        Raises:
            DataError: A name differs, or stands elsewhere.
        """
        for name, expected in zip_longest(names, self.names):
            if name != expected:
                raise DataError(
                    f"class {name!r} where {expected!r} was expected: tune thresholds for this "
                    "model's classes"
                )

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary; infinity, which JSON does not have, as `None`."""
        return asdict(self) | {
            "values": [None if np.isinf(value) else value for value in self.values]
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Thresholds:
        """From what `to_json` gave.

        Raises:
            DataError: A field is missing, too much, or of the wrong kind.
        """
        try:
            values = tuple(np.inf if value is None else float(value) for value in plain["values"])
            lists = {
                "names": tuple(plain["names"]),
                "values": values,
                "positives": tuple(plain["positives"]),
            }
            return cls(**(dict(plain) | lists))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"not thresholds as `Thresholds.save` writes them: {error!r}; tune them again"
            ) from None

    def save(self, path: Path | str) -> None:
        """Write them as JSON, whole."""
        write_whole(
            own_path(path),
            json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        )

    @classmethod
    def load(cls, path: Path | str) -> Thresholds:
        """Read what `save` wrote; errors as of `from_json`."""
        file = own_path(path)
        try:
            check_plain(file)
            plain = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"{path} cannot be read as thresholds ({error}); tune and save them first"
            ) from None
        return cls.from_json(plain)


def _cuts(
    labels: np.ndarray, scores: np.ndarray, objective: Objective
) -> tuple[np.ndarray, np.ndarray]:
    """Falling scores of each class `(n_classes, n_rows)`, and what the first k are worth.

    The values `(n_classes, n_rows + 1)` begin with k = 0, nothing predicted; cuts between equal
    scores are among them.
    """
    check(labels, scores)
    columns = np.ascontiguousarray(scores.T, dtype=np.float64)
    order = np.argsort(-columns, axis=1)
    hits = np.zeros((len(columns), len(scores) + 1))
    np.cumsum(np.take_along_axis(labels.T, order, axis=1), axis=1, out=hits[:, 1:])
    values = objective(hits, np.arange(hits.shape[1]) - hits, hits[:, -1:] - hits)
    return np.take_along_axis(columns, order, axis=1), values


def _midway(ranked: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Thresholds between the `cut` highest scores of each row and the next, `(len(ranked),)`."""
    rows = np.arange(len(ranked))
    here = np.where(cut > 0, ranked[rows, cut - 1], np.inf)
    below = ranked[rows, np.minimum(cut, ranked.shape[1] - 1)]
    middle = here / 2 + below / 2
    # Between neighbouring floats, and near the smallest ones, the middle may round down to `below`
    # or up past `here`.
    return np.where((below < middle) & (middle <= here), middle, here)
