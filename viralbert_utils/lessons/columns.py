"""Columns of a video's table as numbers: skewed counts, categories, gaps; kept with the model
(lesson 07)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

from viralbert_utils.base.texts import normalise
from viralbert_utils.data.tables import require_columns, require_table
from viralbert_utils.evaluation.metrics import one_hot

SKEWED = 1.0  # skewness from which the logarithm of a count is taken


def snippet(rows: pd.DataFrame, label: str, n_rows: int) -> pd.DataFrame:
    """The first rows of each class in turn, for a quick try that still meets every class; in the
    table's order.

    Raises:
        DataError: There is no such column as `label`.
    """
    require_columns(rows, [label])
    turn = rows.groupby(label).cumcount().sort_values(kind="stable")
    return rows.loc[turn.index[:n_rows]].sort_index()


def empty(rows: pd.DataFrame) -> pd.DataFrame:
    """Which cells hold nothing: missing, or nothing that is seen (white space, invisible
    characters)."""
    require_table(rows)
    return rows.isna() | rows.map(lambda cell: not normalise(str(cell)))


@dataclass(frozen=True)
class Number:
    """What was learnt of a numeric column.

    Attributes:
        log: Whether the logarithm of one plus the value is taken, which goes for all below.
        median: In the place of a missing value.
        mean: Mean of the training values, for scaling.
        scale: Their standard deviation.
        edges: Between the bins, in order.
    """

    log: bool
    median: float
    mean: float
    scale: float
    edges: list[float]


@dataclass(frozen=True)
class Preparation:
    """From rows to a text and a vector of columns; plain values, so it is stored as JSON and not as
    pickle.

    Attributes:
        texts: Columns that are joined into one text.
        numbers: Numeric columns and what was learnt of them.
        categories: Categorical columns and their known values; any other value gives zeros.
    """

    texts: list[str]
    numbers: dict[str, Number]
    categories: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """All columns that are read of a row."""
        return [*self.texts, *self.numbers, *self.categories]

    def text(self, rows: pd.DataFrame) -> list[str]:
        """One text a row: each field under its name, so that the model sees which one is empty.

        Raises:
            DataError: A column of `texts` is missing.
        """
        require_columns(rows, self.texts)
        gone = empty(rows[self.texts])
        return [
            " ".join(
                f"{name}: {'—' if none else normalise(str(value))}"
                for name, value, none in zip(self.texts, values, nones, strict=True)
            )
            for values, nones in zip(rows[self.texts].to_numpy(), gone.to_numpy(), strict=True)
        ]

    def columns(self, rows: pd.DataFrame) -> np.ndarray:
        """`(n_rows, n_columns)` float32: scaled numbers, which are missing, bins, categories.

        Raises:
            DataError: A column of `numbers` or `categories` is missing.
        """
        require_columns(rows, [*self.numbers, *self.categories])
        frame = _frame(
            rows, {name: number.log for name, number in self.numbers.items()}, list(self.categories)
        )
        scaled, missing, bins = [], [], []
        for name, number in self.numbers.items():
            values = frame[name].fillna(number.median).to_numpy()
            scaled.append((values[:, None] - number.mean) / number.scale)
            missing.append(frame[[name]].isna())
            bins.append(
                one_hot(
                    np.searchsorted(number.edges, values, "right"),
                    list(range(len(number.edges) + 1)),
                )
            )
        known = [
            one_hot(frame[name].to_numpy(), values) for name, values in self.categories.items()
        ]
        return np.hstack([np.empty((len(rows), 0)), *scaled, *missing, *bins, *known]).astype(
            np.float32
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Preparation:
        """What `dataclasses.asdict` made plain."""
        numbers = {name: Number(**number) for name, number in plain["numbers"].items()}
        return cls(plain["texts"], numbers, plain["categories"])


def prepare(
    rows: pd.DataFrame,
    texts: Sequence[str],
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    n_bins: int = 10,
) -> Preparation:
    """Learn the preparation from training rows.

    scikit-learn's ColumnTransformer learns (`column_transformer`); what it has learnt is kept as
    plain numbers, because a stored scikit-learn object is a pickle: code that runs when it is
    opened, and only with the same version.

    Args:
        rows: Training rows; numbers may be written as text, what is no number counts as missing.
        texts: Columns to read as text.
        numbers: Columns to read as numbers.
        categories: Columns to read as categories.
        n_bins: Bins of each number, equally full.

    Raises:
        DataError: A column that is not there.
    """
    require_columns(rows, [*texts, *numbers, *categories])
    plain = _frame(rows, dict.fromkeys(numbers, False), [])
    skewed = (plain.min() >= 0) & (plain.skew() > SKEWED)
    logs = {name: bool(skewed[name]) for name in numbers}
    fitted = column_transformer(list(numbers), list(categories), n_bins).fit(
        _frame(rows, logs, list(categories))
    )
    learnt: dict[str, Number] = {}
    if numbers:
        scaled, bins = fitted.named_transformers_["scaled"], fitted.named_transformers_["bins"]
        medians, means, scales = (
            part.tolist() for part in (scaled[0].statistics_, scaled[1].mean_, scaled[1].scale_)
        )
        edges = [column_edges[1:-1].tolist() for column_edges in bins[1].bin_edges_]
        learnt = {
            name: Number(logs[name], *parts)
            for name, *parts in zip(numbers, medians, means, scales, edges, strict=True)
        }
    known = fitted.named_transformers_["categories"].categories_ if categories else []
    return Preparation(
        list(texts), learnt, {n: list(values) for n, values in zip(categories, known, strict=True)}
    )


def column_transformer(
    numbers: list[str], categories: list[str], n_bins: int = 10
) -> ColumnTransformer:
    """Scikit-learn's preparation, unfitted, for numeric columns and columns of strings."""
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    bins = KBinsDiscretizer(n_bins, encode="onehot-dense", quantile_method="averaged_inverted_cdf")
    known = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("scaled", make_pipeline(median, StandardScaler()), numbers),
            ("missing", MissingIndicator(features="all"), numbers),
            ("bins", make_pipeline(median, bins), numbers),
            ("categories", known, categories),
        ]
    )


def _frame(rows: pd.DataFrame, logs: dict[str, bool], categories: list[str]) -> pd.DataFrame:
    """Numeric columns as numbers, or their logarithms; categories as strings, an empty one being a
    value, too."""
    columns = {}
    for name, log in logs.items():
        values = (
            pd.to_numeric(rows[name], errors="coerce")
            .astype(float)
            .replace([np.inf, -np.inf], np.nan)
        )
        # Rounded: scikit-learn leaves a column no bin at all whose values differ by less than 1e-8.
        columns[name] = (np.log1p(values.clip(lower=0)) if log else values).round(6)
    return pd.DataFrame(
        columns | {name: rows[name].fillna("").astype(str) for name in categories}, index=rows.index
    )
