"""Decide the easy rows by rules that one can read, the next by least squares, the rest by a hybrid,
or refuse them.

Lesson 07 uses it. The thresholds come from decisions about training rows by rules and classifiers
that had not seen them, so what they promise is not the precision of a lucky choice. Sources: Rivest
1987 (decision lists); Viola & Jones 2001 (cascades); Rifkin & Klautau 2004 (one against the rest by
least squares); Allen 1974 (leaving one out in closed form).
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.model_selection import RepeatedKFold
from sklearn.pipeline import FeatureUnion

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_sums, own_path, whole_folder, write_sums
from viralbert_utils.data.tables import require_columns, require_rows
from viralbert_utils.evaluation.baselines import tfidf
from viralbert_utils.evaluation.calibration import proportion_interval
from viralbert_utils.evaluation.metrics import one_hot
from viralbert_utils.evaluation.thresholds import best_global, recall_at_precision
from viralbert_utils.lessons import plain_tfidf
from viralbert_utils.lessons.columns import Preparation, empty

STAGES = ("rules", "least squares", "hybrid")
REFUSED = "none of these"  # the stage of a row that gets no class
PREFIXES = (4, 5, 6)  # letters: what inflection leaves of a name
MIN_ROWS = 3  # training rows in which a pattern must stand
PRECISION = (
    0.97,
    0.9,
)  # asked of rules, and of least squares, unless the caller asks otherwise
VETO = 0.4  # bound from which a rule counts at all: too weak to decide, strong enough to object
COLUMN_WEIGHT = 0.3  # of table columns beside TF-IDF vectors
PENALTY = 0.3  # of the least squares
N_ROUNDS = 3  # of cutting the training rows into parts
SETTINGS, NUMBERS, REST = "cascade.json", "cascade.safetensors", "hybrid"  # in a saved one's folder


class Rest(Protocol):
    """What decides the rows that are left, such as a `Hybrid`."""

    def predict(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
        """A table with `answer` and `certainty` of each row, and figures, which nobody reads."""
        ...


@dataclass(frozen=True)
class Rule:
    """Rows with the pattern belong to the class.

    Attributes:
        pattern: A word, the beginning of a word (`глоб…`), two words in a row, or `column=value`.
        answer: The class.
        n_rows: Training rows with the pattern.
        n_right: How many of them are of the class.
        bound: Lower end of the interval of its precision (95 %, one-sided). Among thousands of
            patterns some are right by luck, so it ranks the rules; what they are worth, rows that
            had no part in mining tell.
    """

    pattern: str
    answer: str
    n_rows: int
    n_right: int
    bound: float

    def __str__(self) -> str:
        """The rule in a line."""
        return f"{self.pattern} → {self.answer} ({self.n_right} of {self.n_rows})"


def patterns(
    rows: pd.DataFrame, texts: Sequence[str], categories: Sequence[str] = ()
) -> list[set[str]]:
    """Everything in each row that a rule may ask for, see `Rule.pattern`; case, ё and forms of
    letters do not count.

    Raises:
        DataError: A column is missing.
    """
    fields = [*texts, *categories]
    require_columns(rows, fields)
    cells = rows[fields].astype(str).mask(empty(rows[fields]), "")
    pattern_sets = [
        {f"{name}={cell}" for name, cell in zip(categories, values, strict=True) if cell}
        for values in cells[list(categories)].to_numpy()
    ]
    for pattern_set, values in zip(pattern_sets, cells[list(texts)].to_numpy(), strict=True):
        for text in values:
            words = re.findall(
                r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")
            )
            pattern_set |= {word for word in words if len(word) >= min(PREFIXES)}
            pattern_set |= {f"{word[:n]}…" for word in words for n in PREFIXES if len(word) > n}
            pattern_set |= {f"{first} {second}" for first, second in pairwise(words)}
    return pattern_sets


def mine(pattern_sets: Sequence[set[str]], labels: np.ndarray) -> list[Rule]:
    """Rules of training rows, strongest first; of patterns that stand in the same rows the
    shortest.

    Args:
        pattern_sets: `patterns` of the rows.
        labels: Class of each row `(n_rows,)`.
    """
    classes, ids = np.unique(labels, return_inverse=True)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, pattern_set in enumerate(pattern_sets):
        for pattern in pattern_set:
            rows_of[pattern].append(row)
    often = {pattern: tuple(rows) for pattern, rows in rows_of.items() if len(rows) >= MIN_ROWS}
    shortest: dict[tuple[int, ...], str] = {}
    for pattern in sorted(often, key=lambda pattern: (len(pattern), pattern)):
        shortest.setdefault(often[pattern], pattern)
    counts = np.zeros((len(shortest), len(classes)), dtype=int)
    for counted, rows in zip(counts, shortest, strict=True):
        np.add.at(counted, ids[list(rows)], 1)
    n_rows, n_right = counts.sum(axis=1), counts.max(axis=1)
    bounds = proportion_interval(n_right, n_rows, level=0.9)[0]
    rules = [
        Rule(pattern, str(classes[counted.argmax()]), int(n), int(right), float(bound))
        for pattern, counted, n, right, bound in zip(
            shortest.values(), counts, n_rows, n_right, bounds, strict=True
        )
        if bound >= VETO
    ]
    return sorted(rules, key=lambda rule: (-rule.bound, rule.pattern))


def vote(rules: Sequence[Rule], pattern_sets: Sequence[set[str]]) -> list[Rule | None]:
    """The strongest rule that speaks for each row; none where no rule does, or where two rules name
    unlike classes."""
    by_pattern = {rule.pattern: rule for rule in rules}
    chosen: list[Rule | None] = []
    for pattern_set in pattern_sets:
        heard = [by_pattern[pattern] for pattern in pattern_set & by_pattern.keys()]
        agreed = len({rule.answer for rule in heard}) == 1
        chosen.append(max(heard, key=lambda rule: (rule.bound, rule.pattern)) if agreed else None)
    return chosen


def least_squares(features: sparse.csr_matrix, hot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One classifier a class against the rest by penalised least squares, rare classes weighted up.

    With `G = K + penalty / weights`, `K` the products of the rows, the dual weights are `a = G⁻¹
    y`, and a row's score from all rows but itself is `y - a / diag(G⁻¹)`: one inverse stands for as
    many trainings as there are rows.

    Args:
        features: `(n_rows, n_features)`.
        hot: 0/1, `(n_rows, n_classes)`; every class has a row.

    Returns:
        Coefficients `(n_features, n_classes)`, and each row's scores by classifiers that have not
        seen its label `(n_rows, n_classes)`.
    """
    weights = (len(hot) / (hot.shape[1] * hot.sum(axis=0)))[hot.argmax(axis=1)]
    inverse = np.linalg.inv((features @ features.T).toarray() + np.diag(PENALTY / weights))
    dual = inverse @ hot
    return features.T @ dual, hot - dual / np.diag(inverse)[:, None]


@dataclass(frozen=True)
class Cascade:
    """Rules, least squares (one classifier a class against the rest), a hybrid.

    Attributes:
        preparation: What the classifiers read of a row; its texts and categories are what rules
            read.
        classes: In the order of the scores.
        rules: All of them; weaker ones than `min_bound` only object.
        min_bound: Least bound with which a rule decides.
        features: Fitted TF-IDF.
        coefficients: `(n_features, n_classes)`.
        min_lead: Least lead of the best class over the next with which the classifiers decide.
        rest: The model for what is left, a `Hybrid` or what answers like one.
        min_score: A row that is left is refused if its best score is lower; minus infinity refuses
            none.
    """

    preparation: Preparation
    classes: list[str]
    rules: list[Rule]
    min_bound: float
    features: FeatureUnion
    coefficients: np.ndarray
    min_lead: float
    rest: Rest
    min_score: float = -math.inf

    def read(self, rows: pd.DataFrame) -> sparse.csr_matrix:
        """What the classifiers see `(n_rows, n_features)`: TF-IDF of the text, then the columns.

        Raises:
            DataError: A column that the preparation reads is missing.
        """
        require_columns(rows, self.preparation.names)
        return _features(self.features, self.preparation, rows)

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Scores of the classifiers `(n_rows, n_classes)`: about 1 for the class, 0 for others."""
        return self.read(rows) @ self.coefficients

    def decide(self, rows: pd.DataFrame) -> pd.DataFrame:
        """For each row `answer`, the `stage` that gave it, and its `reason` in words.

        A refused row has an empty answer and the stage `REFUSED`.

        Raises:
            DataError: A column that the preparation reads is missing.
        """
        require_columns(rows, self.preparation.names)
        require_rows(rows)
        pattern_sets = patterns(rows, self.preparation.texts, list(self.preparation.categories))
        votes = vote(self.rules, pattern_sets)
        scores = self.scores(rows)
        best, runner_up, lead = _lead(scores)
        decided: list[tuple[str, str, str]] = []
        later: list[int] = []  # positions of the rows that are left for the model
        for row, rule in enumerate(votes):
            if rule is not None and rule.bound >= self.min_bound:
                decided.append((rule.answer, STAGES[0], str(rule)))
            elif lead[row] >= self.min_lead:
                reason = f"leads {self.classes[runner_up[row]]} by {lead[row]:.2f}"
                decided.append((self.classes[best[row]], STAGES[1], reason))
            elif scores[row, best[row]] < self.min_score:
                reason = f"the best score is {scores[row, best[row]]:.2f}"
                decided.append(("", REFUSED, reason))
            else:
                decided.append(("", STAGES[2], ""))
                later.append(row)
        if later:
            rest, _ = self.rest.predict(rows.iloc[later])
            for row, answer, certainty in zip(
                later, rest["answer"], rest["certainty"], strict=True
            ):
                decided[row] = (answer, STAGES[2], f"certainty {certainty:.2f}")
        return pd.DataFrame(decided, rows.index, ["answer", "stage", "reason"], dtype=object)

    def save(self, folder: Path | str) -> None:
        """Write the cascade as one folder, whole or not at all, without pickle.

        Rules, thresholds and the n-grams are JSON, coefficients are safetensors, and the model for
        the rest has a folder of its own in it, `hybrid`.

        Raises:
            DataError: The model for the rest is no `Hybrid`.
        """
        from viralbert_utils.lessons.hybrid import Hybrid

        if not isinstance(self.rest, Hybrid):
            raise DataError(
                "a cascade is saved with the hybrid that decides the rest: expected a Hybrid, "
                f"found {type(self.rest).__name__}; fit the cascade with one"
            )
        terms, frequencies = plain_tfidf.to_plain(self.features)
        # A stage that decides nothing has an infinite threshold, which JSON does not know.
        settings = {
            "kind": "cascade",
            "classes": self.classes,
            "preparation": asdict(self.preparation),
            "rules": [asdict(rule) for rule in self.rules],
            "min_bound": float(self.min_bound) if math.isfinite(self.min_bound) else None,
            "min_lead": float(self.min_lead) if math.isfinite(self.min_lead) else None,
            "min_score": float(self.min_score) if math.isfinite(self.min_score) else None,
            "terms": terms,
        }
        numbers = {f"idf.{number}": own for number, own in enumerate(frequencies)}
        numbers["coefficients"] = np.ascontiguousarray(self.coefficients, dtype=np.float64)
        with whole_folder(folder) as new:
            self.rest.save(new / REST)
            text = json.dumps(settings, ensure_ascii=False)
            (new / SETTINGS).write_text(text, encoding="utf-8", errors="backslashreplace")
            save_file(numbers, new / NUMBERS)
            write_sums(new)

    @classmethod
    def load(cls, folder: Path | str, device: Any = None) -> Cascade:
        """What `save` wrote.

        Args:
            folder: The folder that `save` was given.
            device: Where the hybrid is put; `devices.default` if not given.

        Raises:
            DataError: The folder is none of those, or damaged.
        """
        from viralbert_utils.lessons.hybrid import Hybrid

        path = own_path(folder)
        if not (path / SETTINGS).is_file():
            raise DataError(
                f"{path} is no saved cascade: expected {SETTINGS}, {NUMBERS} and {REST}/ there"
            )
        try:
            check_sums(path)
            plain = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
            numbers = load_file(path / NUMBERS)
            features = plain_tfidf.from_plain(
                plain["terms"], [numbers[f"idf.{n}"] for n in range(len(plain["terms"]))]
            )
            bounds = [
                math.inf if plain[name] is None else float(plain[name])
                for name in ("min_bound", "min_lead")
            ]
            rest = Hybrid.load(path / REST, device)
            cascade = cls(
                Preparation.from_plain(plain["preparation"]),
                plain["classes"],
                [Rule(**rule) for rule in plain["rules"]],
                bounds[0],
                features,
                numbers["coefficients"],
                bounds[1],
                rest,
                -math.inf if plain.get("min_score") is None else float(plain["min_score"]),
            )
            cascade._check()
        except Exception as error:  # a missing or broken file, another kind of model: one remedy
            raise DataError(
                f"{path} is no saved cascade, or a damaged one ({error}); save it again"
            ) from error
        return cascade

    def _check(self) -> None:
        """Refuse parts that do not belong together, before the first row meets them.

        Raises:
            Exception: One of many kinds.
        """
        unknown = {rule.answer for rule in self.rules} - {*self.classes}
        if unknown or len({*self.classes}) != len(self.classes):
            raise ValueError(f"rules for {sorted(unknown)}, the classes are {self.classes}")
        row = pd.DataFrame({name: [None] for name in self.preparation.names}, dtype=object)
        scores = self.scores(row)
        if scores.shape != (1, len(self.classes)) or not np.isfinite(scores).all():
            raise ValueError(f"expected scores for {len(self.classes)} classes, found {scores!r}")
        self.decide(row)
        self.rest.predict(row)


def fit(
    rows: pd.DataFrame,
    label: str,
    preparation: Preparation,
    rest: Rest,
    precision: tuple[float, float] = PRECISION,
    n_folds: int = 5,
    seed: int = 0,
    refuse: float = 0.0,
) -> Cascade:
    """Learn the first two stages and the thresholds from training rows.

    Args:
        rows: Training rows.
        label: Column of the class.
        preparation: From `hybrid.prepare`, on the same rows.
        rest: See `Cascade`; trained on the same rows.
        precision: That rules and classifiers must reach on training rows they have not seen; each
            then decides as many rows as it can. A little more than is wished of new rows: the
            threshold is the best of many.
        n_folds: Parts into which the rows are cut, so that rules are mined without each of them.
        seed: Decides on the folds.
        refuse: Share of the training rows whose best leave-one-out score lies below `min_score`.
            The cascade refuses fewer of them, because rules and least squares decide some.

    Raises:
        DataError: The label or a column that the preparation reads is missing.
    """
    require_columns(rows, [label, *preparation.names])
    labels, classes = rows[label].to_numpy(), sorted(rows[label].unique())
    pattern_sets = patterns(rows, preparation.texts, list(preparation.categories))
    judged: list[int] = []
    votes: list[Rule | None] = []
    # One cut into parts gives few decisions to set a threshold by, and another cut another
    # threshold.
    for learn, judge in RepeatedKFold(
        n_splits=n_folds, n_repeats=N_ROUNDS, random_state=seed
    ).split(labels):
        judged += judge.tolist()
        votes += vote(
            mine([pattern_sets[i] for i in learn], labels[learn]), [pattern_sets[i] for i in judge]
        )
    bounds = np.array([0.0 if rule is None else rule.bound for rule in votes])
    right = np.array(
        [
            rule is not None and rule.answer == labels[i]
            for rule, i in zip(votes, judged, strict=True)
        ]
    )
    min_bound = _threshold(right, bounds, precision[0])
    features = tfidf().fit(preparation.text(rows))
    coefficients, unseen = least_squares(
        _features(features, preparation, rows), one_hot(labels, classes)
    )
    first, _, lead = _lead(unseen)
    left = np.array(judged)[bounds < min_bound]
    min_lead = _threshold((np.array(classes)[first] == labels)[left], lead[left], precision[1])
    return Cascade(
        preparation,
        classes,
        mine(pattern_sets, labels),
        min_bound,
        features,
        coefficients,
        min_lead,
        rest,
        float(np.quantile(unseen.max(axis=1), refuse)) if refuse else -math.inf,
    )


def by_stage(decisions: pd.DataFrame, truth: np.ndarray) -> pd.DataFrame:
    """What each stage is worth.

    Args:
        decisions: From `Cascade.decide`.
        truth: Class of each row.

    Returns:
        A row a stage that decided any: `rows`, `coverage` (its share of all rows), `precision`, and
        the interval `low`, `high` of it (Jeffreys, 95 %). Refused rows count among all rows.
    """
    require_columns(decisions, ["answer", "stage"])
    right = (
        pd.Series(decisions["answer"].to_numpy() == truth)
        .groupby(decisions["stage"].to_numpy())
        .agg(["size", "sum"])
    )
    right = right.reindex([stage for stage in STAGES if stage in right.index])
    low, high = proportion_interval(right["sum"].to_numpy(), right["size"].to_numpy())
    columns = {
        "rows": right["size"],
        "coverage": right["size"] / len(decisions),
        "precision": right["sum"] / right["size"],
    }
    return pd.DataFrame(columns | {"low": low, "high": high})


def _threshold(right: np.ndarray, certainty: np.ndarray, precision: float) -> float:
    """From which certainty on as many rows as possible are decided at this precision; infinity
    where none are."""
    if not right.any():
        return float("inf")
    return best_global(
        right[:, None].astype(int), certainty[:, None], recall_at_precision(precision)
    )


def _lead(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best class of each row, the next one, and the lead of the former."""
    second, first = np.argsort(scores, axis=1)[:, -2:].T
    rows = np.arange(len(scores))
    return first, second, scores[rows, first] - scores[rows, second]


def _features(
    features: FeatureUnion, preparation: Preparation, rows: pd.DataFrame
) -> sparse.csr_matrix:
    words = features.transform(preparation.text(rows))
    return sparse.hstack([words, COLUMN_WEIGHT * preparation.columns(rows)]).tocsr()
