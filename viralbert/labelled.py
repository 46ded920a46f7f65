"""The labelled texts that `viralbert train` learns from and `viralbert evaluate` judges by.

Each set is read from its source, cleaned and split as in lesson 01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from viralbert.places import check_data
from viralbert.trainings import Training
from viralbert_utils.base.errors import DataError
from viralbert_utils.data import combine, emotions, sources
from viralbert_utils.data.cleaning import RULES, clean
from viralbert_utils.data.splits import split_set
from viralbert_utils.evaluation.metrics import one_hot
from viralbert_utils.lessons.preparation import own_set

GRADES = tuple(map(str, range(11)))
CLASSES = {
    "emotions": emotions.EMOTIONS,
    "cedr": emotions.CEDR_CLASSES,
    "virality": ("viral",),
    "reviews": ("bad", "neutral", "good"),
    "grades": GRADES,
}
# Tasks in which a text has exactly one class.
ONE_CLASS = ("reviews", "grades")
SAME_ROWS = (
    "the sample has no CEDR: its emotions are mapped to the six classes, so cedr and combo are the "
    "same rows"
)


class Rows(NamedTuple):
    """The texts of a split.

    Attributes:
        texts: They themselves.
        labels: `(n_texts, n_classes)`, 0/1.
        groups: The film of each review `(n_texts,)`, for reviews: intervals take those of a film
            together.
    """

    texts: list[str]
    labels: np.ndarray
    groups: np.ndarray | None = None


Labelled = dict[str, Rows]  # split -> rows


def read(training: Training) -> tuple[dict[str, Labelled], list[dict[str, Any]]]:
    """Task -> cleaned and split rows; and the files that were read, with their sha256.

    Raises:
        DataError: As `sources.load` and `cleaning.clean`; reviews without a mark for `grades`.
    """
    files: list[dict[str, Any]] = []
    check_data(training.data)

    def tables(name: str) -> dict[str, pd.DataFrame]:
        return read_set(name, training, files)[0]

    if training.dataset in ONE_CLASS:
        classes = list(CLASSES[training.dataset])
        return {
            training.dataset: {
                split: Rows(
                    list(table["text"]),
                    one_hot(table["label"].to_numpy(), classes).astype(int),
                    table["film"].astype(str).to_numpy(),
                )
                for split, table in tables("reviews").items()
            }
        }, files
    if training.dataset == "virality":
        return {"virality": _rows("virality", tables("virality"))}, files
    has_cedr = not maps_emotions(training)
    general = {} if training.dataset == "cedr" and has_cedr else tables("emotions")
    if training.dataset in ("emotions", "multitask"):
        labelled = {"emotions": _rows("emotions", general)}
        if training.dataset == "multitask":
            labelled["virality"] = _rows("virality", tables("virality"))
        return labelled, files
    cedr = tables("cedr") if has_cedr else {}
    none = pd.DataFrame({"text": [], "labels": []})
    six = {s: combine.six_classes(general.get(s, none), cedr.get(s))[0] for s in cedr or general}
    if cedr and general:
        six, added, _ = combine.native_and_added(six)
        six["train"] = pd.concat([six["train"], added], ignore_index=True)
    return {"cedr": _rows("cedr", six)}, files


def read_set(
    name: str, training: Training, files: list[dict[str, Any]]
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """A set of the training's data, or the virality of its own file, cleaned and split.

    Args:
        name: A key of `contracts.CONTRACTS`.
        training: Says where the data are, and how many rows of them are wanted.
        files: Gets the files that were read, with their sha256.

    Returns:
        Split -> rows; and the names of the splits that the source itself has.

    Raises:
        DataError: As `sources.load` and `cleaning.clean`; or there is no such file, or reviews have
            no mark for `grades`.
    """
    if name == "virality" and training.virality_file:
        loaded = own_set(name, training.virality_file)
    else:
        loaded = sources.load(name, training.data)
    if training.max_rows:
        loaded.splits = {s: table.head(training.max_rows) for s, table in loaded.splits.items()}
    files.extend({"set": name} | asdict(file) for file in loaded.files)
    rules = RULES[name]
    if training.dataset == "grades":
        n_unmarked = _take_marks(loaded)
        files.append({"set": "grades", "reviews without a mark": n_unmarked})
        rules = rules | {"classes": GRADES}
    tables = split_set(name, clean(loaded, **rules).splits, training.seed)
    return tables, set(loaded.splits)


def maps_emotions(training: Training) -> bool:
    """Whether the six classes are mapped from the sample's emotions, since it has no CEDR."""
    return training.data == "sample" and not sources.has("cedr", training.data)


def _take_marks(reviews: sources.Dataset) -> int:
    """Put the marks 0-10 in the place of bad, neutral and good.

    Returns:
        How many reviews have none; they are dropped.
    """
    n_unmarked = 0
    for split, table in reviews.splits.items():
        if "grade10" not in table:
            raise DataError(
                f"the reviews of {reviews.source!r} ({split}) have no column grade10, which "
                "dataset grades needs (marks 0-10, as in blinoff/kinopoisk); use --data hub, a "
                "folder whose reviews have it, or --dataset reviews (bad, neutral, good)"
            )
        marks = pd.to_numeric(table["grade10"], errors="coerce")
        known = marks.isin(range(len(GRADES)))
        if not known.any():
            raise DataError(
                f"the reviews of {reviews.source!r} ({split}): no value of grade10 is a mark from "
                f"0 to 10; found {table['grade10'].iloc[0]!r} in the first row"
            )
        n_unmarked += int((~known).sum())
        reviews.splits[split] = table[known].assign(
            label=marks[known].astype(int).astype(str).astype(object)
        )
    return n_unmarked


def _rows(task: str, tables: Mapping[str, pd.DataFrame]) -> Labelled:
    return {s: Rows(list(t["text"]), labels_of(task, t)) for s, t in tables.items()}


def labels_of(task: str, table: pd.DataFrame) -> np.ndarray:
    """The labels of a cleaned table of emotions, CEDR or virality, `(n_texts, n_classes)`, 0/1."""
    if task == "virality":
        return table[["label"]].to_numpy(int)
    return emotions.multi_hot(table["labels"], len(CLASSES[task]))
